-- name: insert_outcome
-- Appends an outcome; inserts nothing if no agent of that name is registered.
INSERT INTO outcomes (tenant, agent_id, decision_id, occurred_at, success, quality, quality_bin, latency_ms,
                      latency_bucket, cost_usd, input_tokens, output_tokens)
SELECT tenant, id, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12
FROM agents
WHERE tenant = ?1 AND name = ?2 AND removed_at IS NULL;

-- name: rolled_up_to
-- The number of the last outcome that agent_stats holds.
SELECT rolled_up_to FROM tenants WHERE tenant = ?1;

-- name: tail
-- The outcomes after a number, in order: what is not rolled up yet, or not read yet.
SELECT id, agent_id, success, quality, quality_bin, latency_ms, latency_bucket, cost_usd, output_tokens
FROM outcomes
WHERE tenant = ?1 AND id > ?2
ORDER BY id;

-- name: rolled_up_stats
-- The sums that are rolled up, removed agents included.
SELECT agent_id, total_requests, successes, latency_count, latency_sum_ms, quality_count, quality_sum,
       unjudged_failures, cost_count, cost_sum_usd, output_tokens_count, output_tokens_sum
FROM agent_stats
WHERE tenant = ?1;

-- name: rolled_up_histograms
-- The histograms that are rolled up.
SELECT agent_id, measure, bucket, count FROM agent_histograms WHERE tenant = ?1;

-- name: put_stats
-- Replaces the sums of one agent.
INSERT OR REPLACE INTO agent_stats (tenant, agent_id, total_requests, successes, latency_count, latency_sum_ms,
                                    quality_count, quality_sum, unjudged_failures, cost_count, cost_sum_usd,
                                    output_tokens_count, output_tokens_sum)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13);

-- name: add_to_histogram
-- Adds to one bucket.
INSERT INTO agent_histograms (tenant, agent_id, measure, bucket, count) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (tenant, agent_id, measure, bucket) DO UPDATE SET count = count + excluded.count;

-- name: put_rolled_up_to
-- Moves the watermark; part of the transaction that moves the sums.
UPDATE tenants SET rolled_up_to = ?2 WHERE tenant = ?1;
