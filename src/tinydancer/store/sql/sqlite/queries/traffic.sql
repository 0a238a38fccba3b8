-- name: traffic
-- The outcomes since an instant (?2) per agent, hour and value, with what their decisions knew. ?3: whether hours are
-- told apart; ?4: the value, 'objective', 'route', 'task', or '' for none. Tokens count where the cost is known, and the
-- estimates of a decision for one agent are not taken for another one that answered.
SELECT agent_id, hour, value, count(*), total(success), count(quality), total(quality), total(quality * quality),
       count(expected_quality), total(expected_quality), count(latency_ms), total(latency_ms), count(cost_usd),
       total(cost_usd), total(cost_usd * cost_usd), count(estimated_usd), total(estimated_usd), count(input_tokens),
       total(input_tokens), total(input_tokens * input_tokens), count(output_tokens), total(output_tokens),
       total(output_tokens * output_tokens)
FROM (SELECT o.agent_id, CASE WHEN ?3 THEN CAST(o.occurred_at AS INTEGER) / 3600 ELSE 0 END AS hour,
             CASE ?4
                 WHEN 'objective' THEN coalesce(d.objective, '')
                 WHEN 'route' THEN coalesce(json_extract(d.context, '$.route_name'), '')
                 WHEN 'task' THEN coalesce(json_extract(d.context, '$.task'), '')
                 ELSE ''
             END AS value,
             o.success, o.quality, CASE WHEN d.agent_id = o.agent_id THEN d.expected_quality END AS expected_quality,
             o.latency_ms, o.cost_usd,
             CASE WHEN o.cost_usd IS NULL AND d.agent_id = o.agent_id THEN d.estimated_cost_usd END AS estimated_usd,
             CASE WHEN coalesce(o.cost_usd, CASE WHEN d.agent_id = o.agent_id THEN d.estimated_cost_usd END) IS NOT NULL
                  THEN coalesce(o.input_tokens, d.input_tokens) * 1.0 END AS input_tokens,
             CASE WHEN coalesce(o.cost_usd, CASE WHEN d.agent_id = o.agent_id THEN d.estimated_cost_usd END) IS NOT NULL
                  THEN o.output_tokens * 1.0 END AS output_tokens
      FROM outcomes AS o
      LEFT JOIN decisions AS d ON d.tenant = o.tenant AND d.decision_id = o.decision_id
      WHERE o.tenant = ?1 AND o.occurred_at >= ?2)
GROUP BY agent_id, hour, value;

-- name: traffic_latencies
-- How many latencies of those lie in each bucket, three of the buckets of outcomes wide; parameters as for traffic, and
-- ?5: whether agents are told apart.
SELECT CASE WHEN ?5 THEN o.agent_id ELSE 0 END AS agent,
       CASE WHEN ?3 THEN CAST(o.occurred_at AS INTEGER) / 3600 ELSE 0 END AS hour,
       CASE ?4
           WHEN 'objective' THEN coalesce(d.objective, '')
           WHEN 'route' THEN coalesce(json_extract(d.context, '$.route_name'), '')
           WHEN 'task' THEN coalesce(json_extract(d.context, '$.task'), '')
           ELSE ''
       END AS value,
       (o.latency_bucket + 2) / 3 AS bucket, count(*)
FROM outcomes AS o
LEFT JOIN decisions AS d ON ?4 <> '' AND d.tenant = o.tenant AND d.decision_id = o.decision_id
WHERE o.tenant = ?1 AND o.occurred_at >= ?2 AND o.latency_bucket IS NOT NULL
GROUP BY agent, hour, value, bucket;

-- name: agents_by_id
-- The names of agents by id, removed ones included.
SELECT id, name FROM agents WHERE tenant = ?1;
