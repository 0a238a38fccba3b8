-- name: registry_version(text)
-- The version of the tenant's agents; no row for a tenant that never had one.
SELECT version FROM tiny_dancer.registry_versions WHERE tenant = $1::text;

-- name: version(text)
-- The registry's version, and how many outcomes are visible with the sum over the hashes of their ids.
SELECT coalesce((SELECT version FROM tiny_dancer.registry_versions WHERE tenant = $1::text), 0) AS registry,
       (tail.outcomes + coalesce(old.outcomes, 0))::bigint AS outcomes,
       (tail.fingerprint + coalesce(old.fingerprint, 0))::bigint AS fingerprint
FROM (SELECT count(*) AS outcomes, coalesce(sum(pg_catalog.hashint8(outcome_id)::bigint), 0) AS fingerprint
      FROM tiny_dancer.outcome_tail
      WHERE tenant = $1::text) AS tail
LEFT JOIN tiny_dancer.rolled_up AS old ON old.tenant = $1::text;

-- name: insert_agents(text, jsonb, float8)
-- Registers agents, given as an array of objects; the unique index refuses a name that is taken. The version's row is
-- locked first: changes of one tenant's registry follow one another and never deadlock. The
-- number is drawn under that lock, so that versions grow in the order of commits.
WITH waited AS MATERIALIZED (
    SELECT pg_catalog.pg_advisory_xact_lock(1413762628, pg_catalog.hashtext($1::text))
), changed AS (
    INSERT INTO tiny_dancer.registry_versions (tenant, version)
    SELECT $1::text, pg_catalog.nextval('tiny_dancer.registry_version_seq') FROM waited
    ON CONFLICT (tenant) DO UPDATE SET version = pg_catalog.nextval('tiny_dancer.registry_version_seq')
    RETURNING tenant
)
INSERT INTO tiny_dancer.agents (tenant, name, agent_type, capabilities, cost_model, avg_latency_ms, quality_score,
                                expected_output_tokens, is_active, metadata, embedding, registered_at, updated_at)
SELECT changed.tenant, a.name, a.agent_type, a.capabilities, a.cost_model, a.avg_latency_ms, a.quality_score,
       a.expected_output_tokens, a.is_active, a.metadata, a.embedding, pg_catalog.to_timestamp($3::float8),
       pg_catalog.to_timestamp($3::float8)
FROM changed, pg_catalog.jsonb_to_recordset($2::jsonb) AS a (
    name text, agent_type text, capabilities text[], cost_model jsonb, avg_latency_ms float8, quality_score float8,
    expected_output_tokens float8, is_active boolean, metadata jsonb, embedding real[]);

-- name: put_agents(text, jsonb, float8)
-- As insert_agents; agents that exist are overwritten and keep their id, and with it their record.
WITH waited AS MATERIALIZED (
    SELECT pg_catalog.pg_advisory_xact_lock(1413762628, pg_catalog.hashtext($1::text))
), changed AS (
    INSERT INTO tiny_dancer.registry_versions (tenant, version)
    SELECT $1::text, pg_catalog.nextval('tiny_dancer.registry_version_seq') FROM waited
    ON CONFLICT (tenant) DO UPDATE SET version = pg_catalog.nextval('tiny_dancer.registry_version_seq')
    RETURNING tenant
)
INSERT INTO tiny_dancer.agents (tenant, name, agent_type, capabilities, cost_model, avg_latency_ms, quality_score,
                                expected_output_tokens, is_active, metadata, embedding, registered_at, updated_at)
SELECT changed.tenant, a.name, a.agent_type, a.capabilities, a.cost_model, a.avg_latency_ms, a.quality_score,
       a.expected_output_tokens, a.is_active, a.metadata, a.embedding, pg_catalog.to_timestamp($3::float8),
       pg_catalog.to_timestamp($3::float8)
FROM changed, pg_catalog.jsonb_to_recordset($2::jsonb) AS a (
    name text, agent_type text, capabilities text[], cost_model jsonb, avg_latency_ms float8, quality_score float8,
    expected_output_tokens float8, is_active boolean, metadata jsonb, embedding real[])
ON CONFLICT (tenant, name) WHERE removed_at IS NULL DO UPDATE
SET agent_type = excluded.agent_type, capabilities = excluded.capabilities, cost_model = excluded.cost_model,
    avg_latency_ms = excluded.avg_latency_ms, quality_score = excluded.quality_score,
    expected_output_tokens = excluded.expected_output_tokens, is_active = excluded.is_active,
    metadata = excluded.metadata, embedding = excluded.embedding, updated_at = excluded.updated_at;

-- name: replace_agent(text, jsonb, float8)
-- Overwrites what a registered agent states; 0 if there is none of that name, and then nothing changes.
WITH waited AS MATERIALIZED (
    SELECT pg_catalog.pg_advisory_xact_lock(1413762628, pg_catalog.hashtext($1::text))
), locked AS MATERIALIZED (
    SELECT v.tenant FROM waited, tiny_dancer.registry_versions AS v WHERE v.tenant = $1::text FOR UPDATE OF v
), replaced AS (
    UPDATE tiny_dancer.agents AS old
    SET agent_type = a.agent_type, capabilities = a.capabilities, cost_model = a.cost_model,
        avg_latency_ms = a.avg_latency_ms, quality_score = a.quality_score,
        expected_output_tokens = a.expected_output_tokens, is_active = a.is_active, metadata = a.metadata,
        embedding = a.embedding, updated_at = pg_catalog.to_timestamp($3::float8)
    FROM locked, pg_catalog.jsonb_to_record($2::jsonb) AS a (
        name text, agent_type text, capabilities text[], cost_model jsonb, avg_latency_ms float8, quality_score float8,
        expected_output_tokens float8, is_active boolean, metadata jsonb, embedding real[])
    WHERE old.tenant = locked.tenant AND old.name = a.name AND old.removed_at IS NULL
    RETURNING old.tenant
), changed AS (
    UPDATE tiny_dancer.registry_versions AS v
    SET version = pg_catalog.nextval('tiny_dancer.registry_version_seq')
    FROM replaced
    WHERE v.tenant = replaced.tenant
)
SELECT count(*) AS agents FROM replaced;

-- name: remove_agents(text, text, float8)
-- Marks one agent as removed, or with NULL every agent; how many. What refers to them keeps their names.
WITH waited AS MATERIALIZED (
    SELECT pg_catalog.pg_advisory_xact_lock(1413762628, pg_catalog.hashtext($1::text))
), locked AS MATERIALIZED (
    SELECT v.tenant FROM waited, tiny_dancer.registry_versions AS v WHERE v.tenant = $1::text FOR UPDATE OF v
), removed AS (
    UPDATE tiny_dancer.agents AS old
    SET removed_at = pg_catalog.to_timestamp($3::float8)
    FROM locked
    WHERE old.tenant = locked.tenant AND old.removed_at IS NULL AND ($2::text IS NULL OR old.name = $2::text)
    RETURNING old.tenant
), changed AS (
    UPDATE tiny_dancer.registry_versions AS v
    SET version = pg_catalog.nextval('tiny_dancer.registry_version_seq')
    WHERE v.tenant = $1::text AND EXISTS (SELECT FROM removed)
)
SELECT count(*) AS agents FROM removed;

-- name: get_agent(text, text)
-- One registered agent; its embedding in the binary form of an array, which NumPy reads without a loop.
SELECT name, agent_type, capabilities, cost_model::text AS cost_model, avg_latency_ms, quality_score,
       expected_output_tokens, is_active, metadata::text AS metadata, pg_catalog.array_send(embedding) AS embedding
FROM tiny_dancer.agents
WHERE tenant = $1::text AND name = $2::text AND removed_at IS NULL;

-- name: list_agents(text)
-- Every registered agent in order of name.
SELECT name, agent_type, capabilities, cost_model::text AS cost_model, avg_latency_ms, quality_score,
       expected_output_tokens, is_active, metadata::text AS metadata, pg_catalog.array_send(embedding) AS embedding
FROM tiny_dancer.agents
WHERE tenant = $1::text AND removed_at IS NULL
ORDER BY name;

-- name: agent_names(text)
-- Names of the registered agents.
SELECT name FROM tiny_dancer.agents WHERE tenant = $1::text AND removed_at IS NULL;

-- name: names_ever(text)
-- Names of all agents that were ever registered.
SELECT DISTINCT name FROM tiny_dancer.agents WHERE tenant = $1::text;
