-- name: insert_decision(text, text, float8, text, text, float8, float8, float8, float8, float8, float8, float8, text, text, text, bytea, text)
-- Records a decision. Its agent may have been removed since it was made: then the last one of that name is meant. An
-- agent that never existed leaves agent_id NULL, which the table refuses.
INSERT INTO tiny_dancer.decisions (
    tenant, decision_id, decided_at, agent_id, objective, expected_quality, confidence, uncertainty,
    estimated_cost_usd, estimated_latency_ms, similarity_score, input_tokens, constraints, model, request, features,
    context)
VALUES (
    $1::text, $2::text, pg_catalog.to_timestamp($3::float8),
    coalesce((SELECT id FROM tiny_dancer.agents WHERE tenant = $1::text AND name = $4::text AND removed_at IS NULL),
             (SELECT max(id) FROM tiny_dancer.agents WHERE tenant = $1::text AND name = $4::text)),
    $5::text, $6::float8, $7::float8, $8::float8, $9::float8, $10::float8, $11::float8, $12::float8, $13::text::jsonb,
    $14::text, $15::text, $16::bytea, $17::text::jsonb);

-- name: insert_decisions(text, text[], float8[], text[], text[], float8[], float8[], float8[], float8[], float8[], float8[], float8[], text[], text[], text[], bytea[], text[])
-- As insert_decision, for many.
INSERT INTO tiny_dancer.decisions (
    tenant, decision_id, decided_at, agent_id, objective, expected_quality, confidence, uncertainty,
    estimated_cost_usd, estimated_latency_ms, similarity_score, input_tokens, constraints, model, request, features,
    context)
SELECT $1::text, d.decision_id, pg_catalog.to_timestamp(d.decided_at),
       coalesce((SELECT a.id FROM tiny_dancer.agents AS a
                 WHERE a.tenant = $1::text AND a.name = d.agent_name AND a.removed_at IS NULL),
                (SELECT max(a.id) FROM tiny_dancer.agents AS a
                 WHERE a.tenant = $1::text AND a.name = d.agent_name)),
       d.objective, d.expected_quality, d.confidence, d.uncertainty, d.estimated_cost_usd, d.estimated_latency_ms,
       d.similarity_score, d.input_tokens, d.constraints::jsonb, d.model, d.request, d.features,
       d.context::jsonb
FROM ROWS FROM (unnest(
    $2::text[], $3::float8[], $4::text[], $5::text[], $6::float8[], $7::float8[], $8::float8[], $9::float8[],
    $10::float8[], $11::float8[], $12::float8[], $13::text[], $14::text[], $15::text[], $16::bytea[], $17::text[]
)) WITH ORDINALITY AS d (
    decision_id, decided_at, agent_name, objective, expected_quality, confidence, uncertainty, estimated_cost_usd,
    estimated_latency_ms, similarity_score, input_tokens, constraints, model, request, features, context,
    place)
ORDER BY d.place;

-- name: recorded_decisions(text, text[])
-- Which of these decisions are recorded.
SELECT decision_id FROM tiny_dancer.decisions WHERE tenant = $1::text AND decision_id = ANY ($2::text[]);

-- name: get_decision(text, text)
-- One decision with its agent's name.
SELECT d.decision_id, extract(epoch FROM d.decided_at)::float8 AS decided_at, a.name, d.objective, d.expected_quality,
       d.confidence, d.uncertainty, d.estimated_cost_usd, d.estimated_latency_ms, d.similarity_score, d.input_tokens,
       d.constraints::text AS constraints, d.model, d.request, d.features,
       d.context::text AS context
FROM tiny_dancer.decisions AS d JOIN tiny_dancer.agents AS a ON a.id = d.agent_id AND a.tenant = d.tenant
WHERE d.tenant = $1::text AND d.decision_id = $2::text;

-- name: list_decisions(text, bigint)
-- The latest decisions first.
SELECT d.decision_id, extract(epoch FROM d.decided_at)::float8 AS decided_at, a.name, d.objective, d.expected_quality,
       d.confidence, d.uncertainty, d.estimated_cost_usd, d.estimated_latency_ms, d.similarity_score, d.input_tokens,
       d.constraints::text AS constraints, d.model, d.request, d.features,
       d.context::text AS context
FROM tiny_dancer.decisions AS d JOIN tiny_dancer.agents AS a ON a.id = d.agent_id AND a.tenant = d.tenant
WHERE d.tenant = $1::text
ORDER BY d.decided_at DESC, d.id DESC
LIMIT $2::bigint;

-- name: decision_totals(text)
-- Counts and estimated costs per agent's name and objective.
SELECT a.name, t.objective, sum(t.decisions)::bigint AS decisions, sum(t.cost_usd)::float8 AS cost_usd
FROM (SELECT agent_id, objective, count(*) AS decisions, coalesce(sum(estimated_cost_usd), 0) AS cost_usd
      FROM tiny_dancer.decisions
      WHERE tenant = $1::text
      GROUP BY agent_id, objective) AS t
JOIN tiny_dancer.agents AS a ON a.id = t.agent_id AND a.tenant = $1::text
GROUP BY a.name, t.objective
ORDER BY a.name, t.objective;

-- name: recent_residuals(text, bigint)
-- |observed - expected| quality of the decisions judged last, each by its last judgement, where the agent that was
-- decided for is the one that answered.
SELECT abs(o.quality - d.expected_quality) AS residual
FROM tiny_dancer.outcomes AS o
JOIN tiny_dancer.decisions AS d
    ON d.tenant = o.tenant AND d.decision_id = o.decision_id AND d.agent_id = o.agent_id
WHERE o.tenant = $1::text
  AND o.quality IS NOT NULL
  AND NOT EXISTS (SELECT
                  FROM tiny_dancer.outcomes AS later
                  WHERE later.tenant = o.tenant
                    AND later.decision_id = o.decision_id
                    AND later.agent_id = o.agent_id
                    AND later.quality IS NOT NULL
                    AND later.id > o.id)
ORDER BY o.id DESC
LIMIT $2::bigint;
