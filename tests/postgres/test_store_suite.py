"""The PostgreSQL store over both its connections, against the checks of every store."""

from __future__ import annotations

import pytest

from tests.store.model_suite import ModelSuite, ModelTenantSuite
from tests.store.route_suite import RouteSuite, RouteTenantSuite
from tests.store.suite import StoreSuite, TenantSuite

pytestmark = pytest.mark.postgres


class TestPostgresFromOutside(StoreSuite, TenantSuite, ModelSuite, ModelTenantSuite, RouteSuite, RouteTenantSuite):
    @pytest.fixture
    def open_store(self, open_from_outside):
        return open_from_outside


class TestPostgresInServer(StoreSuite, TenantSuite, ModelSuite, ModelTenantSuite, RouteSuite, RouteTenantSuite):
    @pytest.fixture
    def open_store(self, open_in_server):
        return open_in_server
