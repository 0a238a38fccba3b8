-- name: insert_outcomes(text, text[], text[], float8[], boolean[], float8[], integer[], float8[], integer[], float8[], bigint[], bigint[], boolean)
-- Appends outcomes to the record and to the tail, without a lock on anything that another session writes. An agent that
-- is not registered leaves agent_id NULL, which the table refuses. Answers whether somebody should roll up: a matter
-- of chance by the new ids' hashes, once in 500 outcomes, so that nobody has to count the tail. Where the tenant has a
-- budget, nothing is appended and the answer is NULL, unless the caller says that it settles.
WITH recorded AS (
    INSERT INTO tiny_dancer.outcomes (
        tenant, agent_id, decision_id, occurred_at, success, quality, quality_bin, latency_ms, latency_bucket,
        cost_usd, input_tokens, output_tokens)
    SELECT $1::text, a.id, o.decision_id, pg_catalog.to_timestamp(o.occurred_at), o.success, o.quality, o.quality_bin,
           o.latency_ms, o.latency_bucket, o.cost_usd, o.input_tokens, o.output_tokens
    FROM ROWS FROM (unnest(
        $2::text[], $3::text[], $4::float8[], $5::boolean[], $6::float8[], $7::integer[], $8::float8[], $9::integer[],
        $10::float8[], $11::bigint[], $12::bigint[]
    )) WITH ORDINALITY AS o (
        agent_name, decision_id, occurred_at, success, quality, quality_bin, latency_ms, latency_bucket, cost_usd,
        input_tokens, output_tokens, place)
    LEFT JOIN tiny_dancer.agents AS a ON a.tenant = $1::text AND a.name = o.agent_name AND a.removed_at IS NULL
    WHERE $13::boolean OR NOT EXISTS (SELECT FROM tiny_dancer.budgets WHERE tenant = $1::text)
    ORDER BY o.place
    RETURNING id, agent_id, success, quality, quality_bin, latency_ms, latency_bucket, cost_usd, output_tokens
), queued AS (
    INSERT INTO tiny_dancer.outcome_tail (
        tenant, outcome_id, agent_id, success, quality, quality_bin, latency_ms, latency_bucket, cost_usd,
        output_tokens)
    SELECT $1::text, id, agent_id, success, quality, quality_bin, latency_ms, latency_bucket, cost_usd, output_tokens
    FROM recorded
    RETURNING pg_catalog.hashint8(outcome_id) % 500 = 0 AS due
)
SELECT bool_or(due) AS due FROM queued;

-- name: may_roll_up(text)
-- Whether this transaction may roll up: no other one does, and its next statement will see all that is committed. The
-- lock is held to the end of the transaction. 1413762627 tells our advisory locks from others'.
SELECT CASE WHEN pg_catalog.current_setting('transaction_isolation') = 'read committed'
            THEN pg_catalog.pg_try_advisory_xact_lock(1413762627, pg_catalog.hashtext($1::text))
            ELSE false
       END AS may;

-- name: roll_up(text)
-- Moves the tail into the statistics; how many outcomes. To be run after may_roll_up said yes, in the same transaction.
-- Sums of floating point numbers go on from the last, outcome by outcome, so that rolling up changes no digit.
WITH taken AS (
    DELETE FROM tiny_dancer.outcome_tail
    WHERE tenant = $1::text
    RETURNING outcome_id, agent_id, success, quality, quality_bin, latency_ms, latency_bucket, cost_usd, output_tokens
), parts AS (
    SELECT agent_id, 0 AS place, total_requests, successes, latency_count, latency_sum_ms, quality_count, quality_sum,
           unjudged_failures, cost_count, cost_sum_usd, output_tokens_count, output_tokens_sum
    FROM tiny_dancer.agent_stats
    WHERE tenant = $1::text AND agent_id IN (SELECT agent_id FROM taken)
    UNION ALL
    SELECT agent_id, outcome_id, 1, success::integer, (latency_ms IS NOT NULL)::integer, latency_ms,
           (quality IS NOT NULL)::integer, quality, (quality IS NULL AND NOT success)::integer,
           (cost_usd IS NOT NULL)::integer, cost_usd, (output_tokens IS NOT NULL)::integer, output_tokens
    FROM taken
), summed AS (
    INSERT INTO tiny_dancer.agent_stats (
        tenant, agent_id, total_requests, successes, latency_count, latency_sum_ms, quality_count, quality_sum,
        unjudged_failures, cost_count, cost_sum_usd, output_tokens_count, output_tokens_sum)
    SELECT $1::text, agent_id, sum(total_requests), sum(successes), sum(latency_count),
           coalesce(sum(latency_sum_ms ORDER BY place), 0), sum(quality_count),
           coalesce(sum(quality_sum ORDER BY place), 0), sum(unjudged_failures), sum(cost_count),
           coalesce(sum(cost_sum_usd ORDER BY place), 0), sum(output_tokens_count), coalesce(sum(output_tokens_sum), 0)
    FROM parts
    GROUP BY agent_id
    ON CONFLICT (tenant, agent_id) DO UPDATE
    SET total_requests = excluded.total_requests, successes = excluded.successes,
        latency_count = excluded.latency_count, latency_sum_ms = excluded.latency_sum_ms,
        quality_count = excluded.quality_count, quality_sum = excluded.quality_sum,
        unjudged_failures = excluded.unjudged_failures, cost_count = excluded.cost_count,
        cost_sum_usd = excluded.cost_sum_usd, output_tokens_count = excluded.output_tokens_count,
        output_tokens_sum = excluded.output_tokens_sum
), counted AS (
    INSERT INTO tiny_dancer.agent_histograms AS h (tenant, agent_id, measure, bucket, count)
    SELECT $1::text, agent_id, measure, bucket, count(*)
    FROM (SELECT agent_id, 'latency_ms' AS measure, latency_bucket AS bucket FROM taken
          UNION ALL
          SELECT agent_id, 'quality', quality_bin FROM taken) AS measured
    WHERE bucket IS NOT NULL
    GROUP BY agent_id, measure, bucket
    ON CONFLICT (tenant, agent_id, measure, bucket) DO UPDATE SET count = h.count + excluded.count
), facts AS (
    SELECT f.*
    FROM taken AS t
    CROSS JOIN LATERAL (SELECT i.*
                        FROM tiny_dancer.traffic_facts AS i
                        WHERE i.tenant = $1::text AND i.outcome_id = t.outcome_id
                        OFFSET 0) AS f
), passed AS (
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
), carried AS (
    INSERT INTO tiny_dancer.traffic AS t (
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
    FROM passed
    GROUP BY kind, hour, agent_id, value
    ON CONFLICT (tenant, kind, hour, agent_id, value) DO UPDATE
    SET requests = t.requests + excluded.requests, successes = t.successes + excluded.successes,
        quality_count = t.quality_count + excluded.quality_count, quality_sum = t.quality_sum + excluded.quality_sum,
        quality_squares = t.quality_squares + excluded.quality_squares,
        expected_count = t.expected_count + excluded.expected_count,
        expected_sum = t.expected_sum + excluded.expected_sum,
        latency_count = t.latency_count + excluded.latency_count,
        latency_sum_ms = t.latency_sum_ms + excluded.latency_sum_ms, cost_count = t.cost_count + excluded.cost_count,
        cost_sum_usd = t.cost_sum_usd + excluded.cost_sum_usd, cost_squares = t.cost_squares + excluded.cost_squares,
        estimated_count = t.estimated_count + excluded.estimated_count,
        estimated_sum_usd = t.estimated_sum_usd + excluded.estimated_sum_usd,
        input_count = t.input_count + excluded.input_count, input_sum = t.input_sum + excluded.input_sum,
        input_squares = t.input_squares + excluded.input_squares,
        output_count = t.output_count + excluded.output_count, output_sum = t.output_sum + excluded.output_sum,
        output_squares = t.output_squares + excluded.output_squares,
        (latency_buckets, latency_numbers) = (
            SELECT coalesce(array_agg(m.bucket ORDER BY m.bucket), '{}'),
                   coalesce(array_agg(m.number ORDER BY m.bucket), '{}')
            FROM (SELECT u.bucket, sum(u.number)::bigint AS number
                  FROM unnest(t.latency_buckets || excluded.latency_buckets,
                              t.latency_numbers || excluded.latency_numbers) AS u (bucket, number)
                  GROUP BY u.bucket) AS m)
), marked AS (
    INSERT INTO tiny_dancer.rolled_up AS r (tenant, outcomes, fingerprint, in_traffic)
    SELECT $1::text, count(*), coalesce(sum(pg_catalog.hashint8(outcome_id)::bigint), 0), count(*)
    FROM taken
    HAVING count(*) > 0
    ON CONFLICT (tenant) DO UPDATE
    SET outcomes = r.outcomes + excluded.outcomes, fingerprint = r.fingerprint + excluded.fingerprint,
        in_traffic = r.in_traffic + excluded.in_traffic
)
SELECT count(*) AS outcomes FROM taken;

-- name: agent_stats(text)
-- Everything observed per agent, removed ones included: what is rolled up plus the tail, as of one instant.
WITH parts AS (
    SELECT agent_id, 0 AS place, total_requests, successes, latency_count, latency_sum_ms, quality_count, quality_sum,
           unjudged_failures, cost_count, cost_sum_usd, output_tokens_count, output_tokens_sum
    FROM tiny_dancer.agent_stats
    WHERE tenant = $1::text
    UNION ALL
    SELECT agent_id, outcome_id, 1, success::integer, (latency_ms IS NOT NULL)::integer, latency_ms,
           (quality IS NOT NULL)::integer, quality, (quality IS NULL AND NOT success)::integer,
           (cost_usd IS NOT NULL)::integer, cost_usd, (output_tokens IS NOT NULL)::integer, output_tokens
    FROM tiny_dancer.outcome_tail
    WHERE tenant = $1::text
), sums AS (
    SELECT agent_id, sum(total_requests)::bigint AS total_requests, sum(successes)::bigint AS successes,
           sum(latency_count)::bigint AS latency_count,
           coalesce(sum(latency_sum_ms ORDER BY place), 0) AS latency_sum_ms,
           sum(quality_count)::bigint AS quality_count, coalesce(sum(quality_sum ORDER BY place), 0) AS quality_sum,
           sum(unjudged_failures)::bigint AS unjudged_failures, sum(cost_count)::bigint AS cost_count,
           coalesce(sum(cost_sum_usd ORDER BY place), 0) AS cost_sum_usd,
           sum(output_tokens_count)::bigint AS output_tokens_count,
           coalesce(sum(output_tokens_sum), 0)::bigint AS output_tokens_sum
    FROM parts
    GROUP BY agent_id
), histograms AS (
    SELECT agent_id, measure, bucket, sum(count)::bigint AS count
    FROM (SELECT agent_id, measure, bucket, count FROM tiny_dancer.agent_histograms WHERE tenant = $1::text
          UNION ALL
          SELECT agent_id, 'latency_ms', latency_bucket, 1 FROM tiny_dancer.outcome_tail WHERE tenant = $1::text
          UNION ALL
          SELECT agent_id, 'quality', quality_bin, 1 FROM tiny_dancer.outcome_tail WHERE tenant = $1::text) AS measured
    WHERE bucket IS NOT NULL
    GROUP BY agent_id, measure, bucket
), gathered AS (
    SELECT agent_id,
           array_agg(bucket) FILTER (WHERE measure = 'latency_ms') AS latency_buckets,
           array_agg(count) FILTER (WHERE measure = 'latency_ms') AS latency_numbers,
           array_agg(bucket) FILTER (WHERE measure = 'quality') AS quality_bins,
           array_agg(count) FILTER (WHERE measure = 'quality') AS quality_numbers
    FROM histograms
    GROUP BY agent_id
)
SELECT a.name, a.removed_at IS NULL AS registered, s.total_requests, s.successes, s.latency_count, s.latency_sum_ms,
       s.quality_count, s.quality_sum, s.unjudged_failures, s.cost_count, s.cost_sum_usd, s.output_tokens_count,
       s.output_tokens_sum, g.latency_buckets, g.latency_numbers, g.quality_bins, g.quality_numbers
FROM sums AS s
JOIN tiny_dancer.agents AS a ON a.id = s.agent_id AND a.tenant = $1::text
LEFT JOIN gathered AS g ON g.agent_id = s.agent_id;
