-- name: session()
-- Whose call this is, under which settings, the latest outcome that this session reported without Python, and the
-- registry's version (as the store's own query of that name reads it): asked anew at every call, so that a SET ROLE or
-- a SET between two calls counts.
SELECT current_user::text AS role,
       t.tenant,
       pg_catalog.current_setting('transaction_read_only') AS read_only,
       pg_catalog.has_table_privilege('tiny_dancer.agents'::pg_catalog.regclass, 'SELECT') AS may_read,
       ARRAY[pg_catalog.current_setting('tiny_dancer.record_decisions', true),
             pg_catalog.current_setting('tiny_dancer.record_requests', true),
             pg_catalog.current_setting('tiny_dancer.record_features', true),
             pg_catalog.current_setting('tiny_dancer.max_request_chars', true),
             pg_catalog.current_setting('tiny_dancer.stats_refresh_s', true),
             pg_catalog.current_setting('tiny_dancer.decision_cache_entries', true),
             pg_catalog.current_setting('tiny_dancer.good_enough', true),
             pg_catalog.current_setting('tiny_dancer.quality_bar', true),
             pg_catalog.current_setting('tiny_dancer.max_alternatives', true),
             pg_catalog.current_setting('tiny_dancer.default_output_tokens', true)]::text AS settings,
       pg_catalog.current_setting('tiny_dancer.own_outcomes', true) AS own_outcomes,
       coalesce((SELECT version FROM tiny_dancer.registry_versions WHERE tenant = t.tenant), 0) AS registry
FROM (SELECT tiny_dancer.current_tenant() AS tenant OFFSET 0) AS t;

-- name: settings()
-- The settings one by one, for the first call under them.
SELECT name, pg_catalog.current_setting('tiny_dancer.' || name, true) AS value
FROM (VALUES ('record_decisions'), ('record_requests'), ('record_features'), ('max_request_chars'), ('stats_refresh_s'),
             ('decision_cache_entries'), ('good_enough'), ('quality_bar'), ('max_alternatives'), ('default_output_tokens')) AS known (name);

-- name: debug()
-- Whether unexpected errors show where they happened.
SELECT coalesce(pg_catalog.current_setting('tiny_dancer.debug', true), '') AS debug;

-- name: owns_tables()
-- Whether the role is the owner of the extension's tables, or a member of that role.
SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owns
FROM pg_catalog.pg_class AS c
WHERE c.oid = 'tiny_dancer.agents'::pg_catalog.regclass;

-- name: agents_ever()
-- Whether an agent was ever registered, as far as this role sees.
SELECT EXISTS (SELECT FROM tiny_dancer.agents) AS found;

-- name: set_space(text, integer)
-- Binds the database to a vector space.
INSERT INTO tiny_dancer.meta (space_name, space_dim) VALUES ($1::text, $2::integer)
ON CONFLICT (id) DO UPDATE SET space_name = excluded.space_name, space_dim = excluded.space_dim;

-- name: put_space_once(text, integer)
-- Binds a new database to the space of its first agent; an existing record stays.
INSERT INTO tiny_dancer.meta (space_name, space_dim) VALUES ($1::text, $2::integer) ON CONFLICT (id) DO NOTHING;
