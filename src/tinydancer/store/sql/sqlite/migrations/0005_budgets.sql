-- What may be spent per period, what was, and what is reserved for requests whose outcome is not known yet. The table of
-- this name in 0001 was never written to.
DROP TABLE budgets;

-- scope_value: the agent, key or tag; NULL where the budget counts everything of the tenant. period: hour, day, week,
-- month, year, total, or a number of days. revision grows with every change, so that nobody reserves by an old amount.
CREATE TABLE budgets (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL CHECK (length(tenant) BETWEEN 1 AND 200),
    name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    revision INTEGER NOT NULL DEFAULT 1,
    amount_usd REAL NOT NULL CHECK (amount_usd BETWEEN 0 AND 1e12),
    period TEXT NOT NULL,
    scope TEXT NOT NULL CHECK (scope IN ('tenant', 'agent', 'key', 'tag')),
    scope_value TEXT CHECK ((scope_value IS NULL) = (scope = 'tenant')),
    time_zone TEXT NOT NULL,
    starts_at REAL,
    ends_at REAL CHECK (ends_at > starts_at),
    on_limit TEXT NOT NULL CHECK (on_limit IN ('refuse', 'cheapest', 'free')),
    pacing TEXT NOT NULL CHECK (pacing IN ('none', 'even')),
    burst REAL NOT NULL CHECK (burst BETWEEN 0 AND 1),
    alert_at TEXT NOT NULL CHECK (json_type(alert_at) = 'array'),
    release_after_s REAL CHECK (release_after_s >= 1),
    is_active INTEGER NOT NULL CHECK (is_active IN (0, 1)),
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    UNIQUE (tenant, name)
) STRICT;

-- One row per budget and period, from its first request on; period is its beginning in seconds since 1970. alerted: the
-- highest share of the amount that was told.
CREATE TABLE budget_periods (
    tenant TEXT NOT NULL,
    budget_id INTEGER NOT NULL REFERENCES budgets (id) ON DELETE CASCADE,
    period INTEGER NOT NULL,
    spent_usd REAL NOT NULL DEFAULT 0 CHECK (spent_usd >= 0),
    reserved_usd REAL NOT NULL DEFAULT 0 CHECK (reserved_usd >= 0),
    alerted REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, budget_id, period)
) STRICT, WITHOUT ROWID;

CREATE INDEX budget_periods_by_budget ON budget_periods (budget_id);

-- What requests that were decided are expected to cost, until their outcome is reported.
CREATE TABLE budget_reservations (
    tenant TEXT NOT NULL,
    decision_id TEXT NOT NULL CHECK (length(decision_id) BETWEEN 1 AND 200),
    budget_id INTEGER NOT NULL REFERENCES budgets (id) ON DELETE CASCADE,
    period INTEGER NOT NULL,
    agent_name TEXT NOT NULL,
    amount_usd REAL NOT NULL CHECK (amount_usd >= 0),
    reserved_at REAL NOT NULL,
    release_at REAL,
    PRIMARY KEY (tenant, decision_id, budget_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX budget_reservations_by_release ON budget_reservations (tenant, budget_id, release_at)
WHERE release_at IS NOT NULL;
CREATE INDEX budget_reservations_by_budget ON budget_reservations (budget_id);

-- Shares of an amount that were passed, once per period; they outlive their budget.
CREATE TABLE budget_alerts (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    budget_id INTEGER NOT NULL,
    budget_name TEXT NOT NULL,
    period INTEGER NOT NULL,
    share REAL NOT NULL CHECK (share > 0 AND share <= 1),
    used_usd REAL NOT NULL,
    amount_usd REAL NOT NULL,
    raised_at REAL NOT NULL,
    UNIQUE (tenant, budget_id, period, share)
) STRICT;
