-- What may be spent per period, what was, and what is reserved for requests whose outcome is not known yet. The table of
-- this name in 0001 was never written to.
DROP TABLE tiny_dancer.budgets;

-- scope_value: the agent, key or tag; NULL where the budget counts everything of the tenant. period: hour, day, week,
-- month, year, total, or a number of days. revision grows with every change, so that nobody reserves by an old amount.
CREATE TABLE tiny_dancer.budgets (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL DEFAULT tiny_dancer.current_tenant() CHECK (char_length(tenant) BETWEEN 1 AND 200),
    name text COLLATE "C" NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    revision integer NOT NULL DEFAULT 1,
    amount_usd double precision NOT NULL CHECK (amount_usd BETWEEN 0 AND 1e12),
    period text NOT NULL CHECK (period IN ('hour', 'day', 'week', 'month', 'year', 'total') OR period ~ '^[0-9]{1,4}$'),
    scope text NOT NULL CHECK (scope IN ('tenant', 'agent', 'key', 'tag')),
    scope_value text COLLATE "C" CHECK ((scope_value IS NULL) = (scope = 'tenant')),
    time_zone text NOT NULL DEFAULT 'UTC',
    starts_at timestamptz,
    ends_at timestamptz CHECK (ends_at > starts_at),
    on_limit text NOT NULL DEFAULT 'refuse' CHECK (on_limit IN ('refuse', 'cheapest', 'free')),
    pacing text NOT NULL DEFAULT 'none' CHECK (pacing IN ('none', 'even')),
    burst double precision NOT NULL DEFAULT 0.1 CHECK (burst BETWEEN 0 AND 1),
    alert_at double precision[] NOT NULL DEFAULT '{0.5,0.8,1}',
    release_after_s double precision CHECK (release_after_s >= 1),
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    UNIQUE (tenant, name)
);

-- One row per budget and period, from its first request on; period is its beginning in seconds since 1970. alerted: the
-- highest share of the amount that was told. Every request under a budget updates its row, hence the room in the pages;
-- and nobody constrains it, nor the reservations: the server would parse the constraints anew each time.
CREATE TABLE tiny_dancer.budget_periods (
    tenant text NOT NULL DEFAULT tiny_dancer.current_tenant(),
    budget_id bigint NOT NULL REFERENCES tiny_dancer.budgets (id) ON DELETE CASCADE,
    period bigint NOT NULL,
    spent_usd double precision NOT NULL DEFAULT 0,
    reserved_usd double precision NOT NULL DEFAULT 0,
    alerted double precision NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, budget_id, period)
) WITH (fillfactor = 25);

CREATE INDEX budget_periods_by_budget ON tiny_dancer.budget_periods (budget_id);

-- What requests that were decided are expected to cost, until their outcome is reported. No foreign key: checking one
-- would lock the budget's row for every request.
CREATE TABLE tiny_dancer.budget_reservations (
    tenant text NOT NULL DEFAULT tiny_dancer.current_tenant(),
    decision_id text COLLATE "C" NOT NULL,
    budget_id bigint NOT NULL,
    period bigint NOT NULL,
    agent_name text NOT NULL,
    amount_usd double precision NOT NULL,
    reserved_at timestamptz NOT NULL,
    release_at timestamptz,
    PRIMARY KEY (tenant, decision_id, budget_id)
);

CREATE INDEX budget_reservations_by_release ON tiny_dancer.budget_reservations (tenant, budget_id, release_at)
    WHERE release_at IS NOT NULL;

-- Shares of an amount that were passed, once per period; they outlive their budget.
CREATE TABLE tiny_dancer.budget_alerts (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant text NOT NULL DEFAULT tiny_dancer.current_tenant() CHECK (char_length(tenant) BETWEEN 1 AND 200),
    budget_id bigint NOT NULL,
    budget_name text NOT NULL,
    period bigint NOT NULL,
    share double precision NOT NULL CHECK (share > 0 AND share <= 1),
    used_usd double precision NOT NULL,
    amount_usd double precision NOT NULL,
    raised_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, budget_id, period, share)
);

ALTER TABLE tiny_dancer.budgets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tiny_dancer.budgets
    USING (tenant = tiny_dancer.current_tenant()) WITH CHECK (tenant = tiny_dancer.current_tenant());

ALTER TABLE tiny_dancer.budget_periods ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tiny_dancer.budget_periods
    USING (tenant = tiny_dancer.current_tenant()) WITH CHECK (tenant = tiny_dancer.current_tenant());

ALTER TABLE tiny_dancer.budget_reservations ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tiny_dancer.budget_reservations
    USING (tenant = tiny_dancer.current_tenant()) WITH CHECK (tenant = tiny_dancer.current_tenant());

ALTER TABLE tiny_dancer.budget_alerts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tiny_dancer.budget_alerts
    USING (tenant = tiny_dancer.current_tenant()) WITH CHECK (tenant = tiny_dancer.current_tenant());

-- Sessions of a database that has the roles already go on working: whoever reports an outcome looks for budgets. The
-- grants are those of roles.sql.
DO $grants$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'tiny_dancer_router')
        AND EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'tiny_dancer_reader')
        AND EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'tiny_dancer_admin')
    THEN
        GRANT SELECT ON tiny_dancer.budgets, tiny_dancer.budget_periods, tiny_dancer.budget_reservations,
            tiny_dancer.budget_alerts TO tiny_dancer_reader, tiny_dancer_router, tiny_dancer_admin;
        GRANT INSERT, UPDATE ON tiny_dancer.budget_periods TO tiny_dancer_router, tiny_dancer_admin;
        GRANT INSERT, UPDATE, DELETE ON tiny_dancer.budget_reservations TO tiny_dancer_router, tiny_dancer_admin;
        GRANT INSERT ON tiny_dancer.budget_alerts TO tiny_dancer_router, tiny_dancer_admin;
        GRANT INSERT, UPDATE, DELETE ON tiny_dancer.budgets TO tiny_dancer_admin;
    END IF;
END;
$grants$;
