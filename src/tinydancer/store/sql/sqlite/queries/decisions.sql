-- name: insert_decision
-- Records a decision. Its agent may have been removed since it was made: then the last one of that name is meant.
INSERT INTO decisions (tenant, decision_id, decided_at, agent_id, objective, expected_quality, confidence, uncertainty,
                       estimated_cost_usd, estimated_latency_ms, similarity_score, input_tokens, constraints, model,
                       request, features, context)
VALUES (?1, ?2, ?3,
        coalesce((SELECT id FROM agents WHERE tenant = ?1 AND name = ?4 AND removed_at IS NULL),
                 (SELECT max(id) FROM agents WHERE tenant = ?1 AND name = ?4)),
        ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17);

-- name: get_decision
-- One decision with its agent's name.
SELECT d.decision_id, d.decided_at, a.name, d.objective, d.expected_quality, d.confidence, d.uncertainty,
       d.estimated_cost_usd, d.estimated_latency_ms, d.similarity_score, d.input_tokens, d.constraints, d.model,
       d.request, d.features, d.context
FROM decisions AS d JOIN agents AS a ON a.id = d.agent_id
WHERE d.tenant = ?1 AND d.decision_id = ?2;

-- name: list_decisions
-- The latest decisions first.
SELECT d.decision_id, d.decided_at, a.name, d.objective, d.expected_quality, d.confidence, d.uncertainty,
       d.estimated_cost_usd, d.estimated_latency_ms, d.similarity_score, d.input_tokens, d.constraints, d.model,
       d.request, d.features, d.context
FROM decisions AS d JOIN agents AS a ON a.id = d.agent_id
WHERE d.tenant = ?1
ORDER BY d.decided_at DESC, d.id DESC
LIMIT ?2;

-- name: decision_totals
-- Counts and estimated costs per agent and objective; agents that share a name are told apart by the caller's sum.
SELECT a.name, t.objective, t.decisions, t.estimated_cost_usd
FROM (SELECT agent_id, objective, count(*) AS decisions, total(estimated_cost_usd) AS estimated_cost_usd
      FROM decisions
      WHERE tenant = ?1
      GROUP BY agent_id, objective) AS t
JOIN agents AS a ON a.id = t.agent_id
ORDER BY a.name, t.objective, a.id;

-- name: recent_residuals
-- |observed - expected| quality of the decisions judged last, each by its last judgement, where the agent that was
-- decided for is the one that answered.
SELECT abs(o.quality - d.expected_quality)
FROM outcomes AS o
JOIN decisions AS d ON d.tenant = o.tenant AND d.decision_id = o.decision_id AND d.agent_id = o.agent_id
WHERE o.tenant = ?1
  AND o.quality IS NOT NULL
  AND NOT EXISTS (SELECT 1
                  FROM outcomes AS later
                  WHERE later.tenant = o.tenant
                    AND later.decision_id = o.decision_id
                    AND later.agent_id = o.agent_id
                    AND later.quality IS NOT NULL
                    AND later.id > o.id)
ORDER BY o.id DESC
LIMIT ?2;
