-- name: traffic(text, text, text, float8, float8, float8[])
-- The traffic since an instant ($4), as of one instant: what is rolled up of the hours from $5 on, the first that lies
-- in it as a whole; what stands in the tail of those; and the outcomes themselves between $4 and $5. $2 is the kind of
-- rows to read beside the plain ones; $6 are the beginnings of periods, the first at or before $4's hour. Rows with an
-- agent are sums per agent, period, and value if $3 is 'value'. The others are histograms, per what $3 names: 'agent',
-- 'value' or 'period'.
WITH starts AS (
    SELECT array_agg(pg_catalog.to_timestamp(u.s) ORDER BY u.place) AS starts
    FROM unnest($6::float8[]) WITH ORDINALITY AS u (s, place)
), fresh AS MATERIALIZED (
    SELECT f.*
    FROM tiny_dancer.outcome_tail AS t
    CROSS JOIN LATERAL (SELECT i.*
                        FROM tiny_dancer.traffic_facts AS i
                        WHERE i.tenant = t.tenant AND i.outcome_id = t.outcome_id
                        OFFSET 0) AS f
    WHERE t.tenant = $1::text AND f.hour >= pg_catalog.to_timestamp($5::float8) AND f.kind IN ('plain', $2::text)
    UNION ALL
    SELECT f.*
    FROM tiny_dancer.traffic_facts AS f
    WHERE f.tenant = $1::text AND f.occurred_at >= pg_catalog.to_timestamp($4::float8)
      AND f.occurred_at < pg_catalog.to_timestamp($5::float8) AND f.kind IN ('plain', $2::text)
), cells AS NOT MATERIALIZED (
    SELECT width_bucket(t.hour, b.starts) AS period, t.agent_id,
           CASE WHEN t.kind = $2::text OR $2::text = 'objective' THEN t.value ELSE '' END AS value, t.requests, t.successes, t.quality_count,
           t.quality_sum, t.quality_squares, t.expected_count, t.expected_sum, t.latency_count, t.latency_sum_ms,
           t.cost_count, t.cost_sum_usd, t.cost_squares, t.estimated_count, t.estimated_sum_usd, t.input_count,
           t.input_sum, t.input_squares, t.output_count, t.output_sum, t.output_squares, t.latency_buckets,
           t.latency_numbers
    FROM starts AS b, tiny_dancer.traffic AS t
    WHERE t.tenant = $1::text AND t.kind IN ('plain', $2::text) AND t.hour >= pg_catalog.to_timestamp($5::float8)
    UNION ALL
    SELECT width_bucket(f.hour, b.starts), f.agent_id,
           CASE WHEN f.kind = $2::text OR $2::text = 'objective' THEN f.value ELSE '' END, 1, f.success::integer,
           (f.quality IS NOT NULL)::integer, coalesce(f.quality, 0), f.quality_square,
           (f.expected_quality IS NOT NULL)::integer, coalesce(f.expected_quality, 0),
           (f.latency_ms IS NOT NULL)::integer, coalesce(f.latency_ms, 0), (f.cost_usd IS NOT NULL)::integer,
           coalesce(f.cost_usd, 0), f.cost_square, (f.estimated_usd IS NOT NULL)::integer,
           coalesce(f.estimated_usd, 0), (f.input_tokens IS NOT NULL)::integer, coalesce(f.input_tokens, 0),
           f.input_square, (f.output_tokens IS NOT NULL)::integer, coalesce(f.output_tokens, 0),
           f.output_square,
           CASE WHEN f.latency_bucket IS NULL THEN '{}' ELSE ARRAY[f.latency_bucket] END,
           CASE WHEN f.latency_bucket IS NULL THEN '{}' ELSE ARRAY[1::bigint] END
    FROM starts AS b, fresh AS f
), sums AS (
    SELECT agent_id, period, CASE WHEN $3::text = 'value' THEN value ELSE '' END AS shown,
           sum(requests)::bigint AS requests, sum(successes)::bigint AS successes,
           sum(quality_count)::bigint AS quality_count, sum(quality_sum) AS quality_sum,
           sum(quality_squares) AS quality_squares, sum(expected_count)::bigint AS expected_count,
           sum(expected_sum) AS expected_sum, sum(latency_count)::bigint AS latency_count,
           sum(latency_sum_ms) AS latency_sum_ms, sum(cost_count)::bigint AS cost_count,
           sum(cost_sum_usd) AS cost_sum_usd, sum(cost_squares) AS cost_squares,
           sum(estimated_count)::bigint AS estimated_count, sum(estimated_sum_usd) AS estimated_sum_usd,
           sum(input_count)::bigint AS input_count, sum(input_sum) AS input_sum, sum(input_squares) AS input_squares,
           sum(output_count)::bigint AS output_count, sum(output_sum) AS output_sum,
           sum(output_squares) AS output_squares
    FROM cells
    GROUP BY agent_id, period, shown
), histograms AS (
    SELECT heading, bucket, sum(number)::bigint AS number
    FROM (SELECT CASE $3::text WHEN 'agent' THEN agent_id::text WHEN 'period' THEN period::text ELSE value END
                     AS heading,
                 unnest(latency_buckets) AS bucket, unnest(latency_numbers) AS number
          FROM cells) AS counted
    GROUP BY heading, bucket
)
SELECT s.*, NULL::text AS heading, NULL::integer[] AS buckets, NULL::bigint[] AS numbers
FROM sums AS s
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL, heading, array_agg(bucket), array_agg(number)
FROM histograms
GROUP BY heading;

-- name: agents_by_id(text)
-- The names of agents by id, removed ones included.
SELECT id, name FROM tiny_dancer.agents WHERE tenant = $1::text;

-- name: without_jit()
-- For the rest of the transaction: compiling the next statement takes longer than running it.
SELECT pg_catalog.set_config('jit', 'off', true) AS jit;

-- name: outside_traffic(text)
-- How many outcomes are rolled up but not in the traffic, because they were there before it was.
SELECT coalesce(sum(outcomes - in_traffic), 0)::bigint AS outcomes FROM tiny_dancer.rolled_up WHERE tenant = $1::text;

-- name: wait_to_roll_up(text)
-- As may_roll_up, but waits for a session that is at it.
SELECT CASE WHEN pg_catalog.current_setting('transaction_isolation') = 'read committed'
            THEN pg_catalog.pg_advisory_xact_lock(1413762627, pg_catalog.hashtext($1::text)) IS NOT NULL
            ELSE false
       END AS may;

-- name: clear_traffic(text)
-- Forgets the traffic, to be followed by fill_traffic in the same transaction.
DELETE FROM tiny_dancer.traffic WHERE tenant = $1::text;

-- name: fill_traffic(text)
-- Adds up the traffic of all outcomes that are rolled up. To be run after clear_traffic; the sums are those of roll_up.
WITH facts AS (
    SELECT f.*
    FROM tiny_dancer.traffic_facts AS f
    WHERE f.tenant = $1::text
      AND NOT EXISTS (SELECT
                      FROM tiny_dancer.outcome_tail AS t
                      WHERE t.tenant = $1::text AND t.outcome_id = f.outcome_id)
), counted AS (
    SELECT kind, hour, agent_id, value, latency_bucket AS bucket, count(*) AS requests,
           count(*) FILTER (WHERE success) AS successes, count(quality) AS quality_count, sum(quality) AS quality_sum,
           sum(quality_square) AS quality_squares, count(expected_quality) AS expected_count,
           sum(expected_quality) AS expected_sum, sum(latency_ms) AS latency_sum_ms, count(cost_usd) AS cost_count,
           sum(cost_usd) AS cost_sum_usd, sum(cost_square) AS cost_squares, count(estimated_usd) AS estimated_count,
           sum(estimated_usd) AS estimated_sum_usd, count(input_tokens) AS input_count, sum(input_tokens) AS input_sum,
           sum(input_square) AS input_squares, count(output_tokens) AS output_count,
           sum(output_tokens) AS output_sum, sum(output_square) AS output_squares
    FROM facts
    GROUP BY kind, hour, agent_id, value, latency_bucket
)
INSERT INTO tiny_dancer.traffic (
    tenant, kind, hour, agent_id, value, requests, successes, quality_count, quality_sum, quality_squares,
    expected_count, expected_sum, latency_count, latency_sum_ms, cost_count, cost_sum_usd, cost_squares,
    estimated_count, estimated_sum_usd, input_count, input_sum, input_squares, output_count, output_sum,
    output_squares, latency_buckets, latency_numbers)
SELECT $1::text, kind, hour, agent_id, value, sum(requests), sum(successes), sum(quality_count),
       coalesce(sum(quality_sum), 0), coalesce(sum(quality_squares), 0), sum(expected_count),
       coalesce(sum(expected_sum), 0), coalesce(sum(requests) FILTER (WHERE bucket IS NOT NULL), 0),
       coalesce(sum(latency_sum_ms), 0), sum(cost_count), coalesce(sum(cost_sum_usd), 0),
       coalesce(sum(cost_squares), 0), sum(estimated_count), coalesce(sum(estimated_sum_usd), 0),
       sum(input_count), coalesce(sum(input_sum), 0), coalesce(sum(input_squares), 0), sum(output_count),
       coalesce(sum(output_sum), 0), coalesce(sum(output_squares), 0),
       coalesce(array_agg(bucket ORDER BY bucket) FILTER (WHERE bucket IS NOT NULL), '{}'),
       coalesce(array_agg(requests ORDER BY bucket) FILTER (WHERE bucket IS NOT NULL), '{}')
FROM counted
GROUP BY kind, hour, agent_id, value;

-- name: count_traffic(text)
-- Notes that all that is rolled up is in the traffic; how many outcomes that are.
UPDATE tiny_dancer.rolled_up SET in_traffic = outcomes WHERE tenant = $1::text RETURNING outcomes;
