-- Roles for reading, routing and administering, and what each may do. May be run again at any time, by a superuser or by
-- the tables' owner if that one may create roles. Grant a role to a login role: GRANT tiny_dancer_router TO my_service;

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['tiny_dancer_reader', 'tiny_dancer_router', 'tiny_dancer_admin'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', wanted);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN
                    NULL; -- roles belong to the whole cluster, and another database's run was first
            END;
        END IF;
    END LOOP;
END;
$$;

-- Reader: sees agents, decisions, outcomes and statistics of its tenant; can decide without recording.
GRANT USAGE ON SCHEMA tiny_dancer TO tiny_dancer_reader, tiny_dancer_router, tiny_dancer_admin;
GRANT SELECT ON ALL TABLES IN SCHEMA tiny_dancer TO tiny_dancer_reader, tiny_dancer_router, tiny_dancer_admin;

-- Router: records decisions and outcomes, rolls them up, keeps what was learned of them, circuit breakers, how often
-- routes are taken, and what is spent of budgets.
GRANT INSERT ON tiny_dancer.decisions, tiny_dancer.outcomes TO tiny_dancer_router, tiny_dancer_admin;
GRANT INSERT, DELETE ON tiny_dancer.outcome_tail TO tiny_dancer_router, tiny_dancer_admin;
GRANT INSERT, UPDATE ON tiny_dancer.agent_stats, tiny_dancer.agent_histograms, tiny_dancer.rolled_up,
    tiny_dancer.traffic, tiny_dancer.breakers, tiny_dancer.abilities, tiny_dancer.route_limits
    TO tiny_dancer_router, tiny_dancer_admin;
GRANT INSERT, UPDATE ON tiny_dancer.budget_periods TO tiny_dancer_router, tiny_dancer_admin;
GRANT INSERT, UPDATE, DELETE ON tiny_dancer.budget_reservations TO tiny_dancer_router, tiny_dancer_admin;
GRANT INSERT ON tiny_dancer.budget_alerts TO tiny_dancer_router, tiny_dancer_admin;

-- Admin: registers, changes and removes agents, routes, budgets, models and experiments. Agents are never deleted.
GRANT INSERT, UPDATE ON tiny_dancer.agents, tiny_dancer.registry_versions TO tiny_dancer_admin;
GRANT INSERT, UPDATE, DELETE ON tiny_dancer.routes, tiny_dancer.route_utterances, tiny_dancer.budgets,
    tiny_dancer.breakers, tiny_dancer.models, tiny_dancer.experiments TO tiny_dancer_admin;
GRANT USAGE ON SEQUENCE tiny_dancer.registry_version_seq TO tiny_dancer_admin;

-- And adds the traffic up anew.
GRANT DELETE ON tiny_dancer.traffic TO tiny_dancer_admin;
