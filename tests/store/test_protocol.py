"""The SQLite store, in a file and in memory, against the checks of every store."""

from __future__ import annotations

import pytest

from tests.store.budget_suite import BudgetSuite, BudgetTenantSuite
from tests.store.model_suite import ModelSuite, ModelTenantSuite
from tests.store.route_suite import RouteSuite, RouteTenantSuite
from tests.store.suite import StoreSuite, TenantSuite
from tests.store.traffic_suite import TrafficSuite, TrafficTenantSuite
from tinydancer.store.sqlite import SqliteStore


def opener(path):
    opened: list[SqliteStore] = []

    def open_store(tenant="default"):
        opened.append(SqliteStore(path, tenant=tenant))
        return opened[-1]

    return open_store, opened


@pytest.fixture
def file_opener(tmp_path):
    open_store, opened = opener(tmp_path / "store.db")
    yield open_store
    for store in opened:
        store.close()


class TestSqliteFile(
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
    def open_store(self, file_opener):
        return file_opener


class TestSqliteMemory(StoreSuite, ModelSuite, RouteSuite, BudgetSuite, TrafficSuite):
    @pytest.fixture
    def open_store(self):
        open_store, opened = opener(":memory:")
        yield lambda tenant="default": opened[0] if opened else open_store(tenant)
        opened[0].close()
