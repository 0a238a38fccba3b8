"""The PostgreSQL store over both its connections, against the checks of every store."""

from __future__ import annotations

import pytest

from tests.store.budget_suite import BudgetSuite, BudgetTenantSuite
from tests.store.model_suite import ModelSuite, ModelTenantSuite
from tests.store.route_suite import RouteSuite, RouteTenantSuite
from tests.store.suite import StoreSuite, TenantSuite
from tests.store.traffic_suite import TrafficSuite, TrafficTenantSuite

pytestmark = pytest.mark.postgres


class TestPostgresFromOutside(
    StoreSuite,
    TenantSuite,
    ModelSuite,
    ModelTenantSuite,
    RouteSuite,
    RouteTenantSuite,
    BudgetSuite,
    BudgetTenantSuite,
    TrafficSuite,
    TrafficTenantSuite,
):
    @pytest.fixture
    def open_store(self, open_from_outside):
        return open_from_outside


class TestPostgresInServer(
    StoreSuite,
    TenantSuite,
    ModelSuite,
    ModelTenantSuite,
    RouteSuite,
    RouteTenantSuite,
    BudgetSuite,
    BudgetTenantSuite,
    TrafficSuite,
    TrafficTenantSuite,
):
    @pytest.fixture
    def open_store(self, open_in_server):
        return open_in_server
