-- name: version
-- The registry's version and the number of the last outcome, both 0 for a tenant that has none.
SELECT coalesce((SELECT registry_version FROM tenants WHERE tenant = ?1), 0),
       coalesce((SELECT max(id) FROM outcomes WHERE tenant = ?1), 0);

-- name: registry_version
-- The registry's version alone; no row for a tenant that has none.
SELECT registry_version FROM tenants WHERE tenant = ?1;

-- name: grow_registry_version
-- Tells every reader that the tenant's agents changed; part of each transaction that changes them.
INSERT INTO tenants (tenant, registry_version) VALUES (?1, 1)
ON CONFLICT (tenant) DO UPDATE SET registry_version = registry_version + 1;

-- name: insert_agent
-- Registers an agent; the unique index refuses a name that is taken.
INSERT INTO agents (tenant, name, agent_type, capabilities, cost_model, avg_latency_ms, quality_score,
                    expected_output_tokens, is_active, metadata, embedding, registered_at, updated_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12);

-- name: replace_agent
-- Overwrites what an agent states; its id, and with it its record, stays. The parameters are those of insert_agent.
UPDATE agents
SET agent_type = ?3, capabilities = ?4, cost_model = ?5, avg_latency_ms = ?6, quality_score = ?7,
    expected_output_tokens = ?8, is_active = ?9, metadata = ?10, embedding = ?11, updated_at = ?12
WHERE tenant = ?1 AND name = ?2 AND removed_at IS NULL;

-- name: remove_agent
-- Marks an agent as removed; what refers to it keeps its name.
UPDATE agents SET removed_at = ?3 WHERE tenant = ?1 AND name = ?2 AND removed_at IS NULL;

-- name: remove_all_agents
-- Marks every agent of the tenant as removed.
UPDATE agents SET removed_at = ?2 WHERE tenant = ?1 AND removed_at IS NULL;

-- name: get_agent
-- One registered agent.
SELECT name, agent_type, capabilities, cost_model, avg_latency_ms, quality_score, expected_output_tokens, is_active,
       metadata, embedding
FROM agents
WHERE tenant = ?1 AND name = ?2 AND removed_at IS NULL;

-- name: list_agents
-- Every registered agent in order of name.
SELECT name, agent_type, capabilities, cost_model, avg_latency_ms, quality_score, expected_output_tokens, is_active,
       metadata, embedding
FROM agents
WHERE tenant = ?1 AND removed_at IS NULL
ORDER BY name;

-- name: agent_names
-- Ids and names of the registered agents.
SELECT id, name FROM agents WHERE tenant = ?1 AND removed_at IS NULL;
