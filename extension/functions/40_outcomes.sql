-- What came of requests, and the totals.

-- Reports of agents come by the thousand, and Python would take most of their time. So a report with nothing wrong in
-- it stays within SQL, and every other one takes the long way, which knows what is wrong and says it.

CREATE FUNCTION tiny_dancer._latency_bucket(latency_ms double precision) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
-- There it is ceil(round(x, 9)), x being the quotient of logarithms; round(double precision) here takes no digits. But
-- that is one above floor(x) exactly where more than 5e-10 is left over, and x - floor(x) has no rounding error. The
-- double precision nearest to 5e-10 lies above it, hence >=.
RETURN CASE WHEN latency_ms <= 0.001::double precision THEN 0
    ELSE (pg_catalog.floor(pg_catalog.ln(latency_ms / 0.001::double precision)
            / pg_catalog.ln(1.02::double precision)))::integer
        + (pg_catalog.ln(latency_ms / 0.001::double precision) / pg_catalog.ln(1.02::double precision)
            - pg_catalog.floor(pg_catalog.ln(latency_ms / 0.001::double precision)
                / pg_catalog.ln(1.02::double precision))
            >= 5e-10::double precision)::integer
    END;
COMMENT ON FUNCTION tiny_dancer._latency_bucket(double precision) IS
    'Internal. As latency_bucket in tinydancer.learn.';

CREATE FUNCTION tiny_dancer._quality_bin(quality double precision) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pg_catalog.floor(quality * 20::double precision + 1e-9::double precision)::integer;
COMMENT ON FUNCTION tiny_dancer._quality_bin(double precision) IS
    'Internal. As quality_bin in tinydancer.learn, for qualities in [0, 1].';

CREATE FUNCTION tiny_dancer._roll_up(of_tenant text) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    moved bigint := 0;
BEGIN
    -- The store's own statements may_roll_up and roll_up, to the letter, so that a session that only reports never
    -- loads the modules. Two statements, because the second has to see what was committed before the lock was had.
    IF (
SELECT CASE WHEN pg_catalog.current_setting('transaction_isolation') = 'read committed'
            THEN pg_catalog.pg_try_advisory_xact_lock(1413762627, pg_catalog.hashtext($1::text))
            ELSE false
       END AS may
    ) THEN
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
SELECT count(*) AS outcomes FROM taken
        INTO moved;
    END IF;
    RETURN moved;
END;
$body$;
COMMENT ON FUNCTION tiny_dancer._roll_up(text) IS
    'Internal. Moves the tail of outcomes into the statistics; how many, 0 if another session does it just now.';

CREATE FUNCTION @extschema@.ruvector_update_agent_metrics(
    name text,
    latency_ms double precision DEFAULT NULL,
    success boolean DEFAULT true,
    quality double precision DEFAULT NULL
) RETURNS boolean LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $body$
#variable_conflict use_variable
DECLARE
    appended bigint;
    noted text;
BEGIN
    IF success IS NOT NULL
        AND (latency_ms BETWEEN 0 AND 1e9) IS NOT FALSE
        AND (quality BETWEEN 0 AND 1) IS NOT FALSE
        AND current_setting('transaction_read_only') = 'off'
        AND has_table_privilege('tiny_dancer.agents'::regclass, 'SELECT')
        AND has_table_privilege('tiny_dancer.outcomes'::regclass, 'SELECT')
        AND has_table_privilege('tiny_dancer.outcomes'::regclass, 'INSERT')
        AND has_table_privilege('tiny_dancer.outcome_tail'::regclass, 'SELECT')
        AND has_table_privilege('tiny_dancer.outcome_tail'::regclass, 'INSERT')
    THEN
        -- As insert_outcomes of the store, for one outcome; no row comes back where the agent is not registered. The
        -- collation is named because that of the argument is its caller's.
        WITH recorded AS (
            INSERT INTO tiny_dancer.outcomes (
                tenant, agent_id, occurred_at, success, quality, quality_bin, latency_ms, latency_bucket)
            SELECT a.tenant, a.id, clock_timestamp(), success, quality, tiny_dancer._quality_bin(quality), latency_ms,
                   tiny_dancer._latency_bucket(latency_ms)
            FROM tiny_dancer.agents AS a
            WHERE a.tenant = tiny_dancer.current_tenant() AND a.name = name COLLATE "C" AND a.removed_at IS NULL
            RETURNING tenant, id, agent_id, quality_bin, latency_bucket
        )
        INSERT INTO tiny_dancer.outcome_tail (
            tenant, outcome_id, agent_id, success, quality, quality_bin, latency_ms, latency_bucket)
        SELECT r.tenant, r.id, r.agent_id, success, quality, r.quality_bin, latency_ms, r.latency_bucket
        FROM recorded AS r
        RETURNING outcome_id INTO appended;
        IF FOUND THEN
            -- The next decision of this session counts it. A setting is taken back together with the outcome, and a
            -- session that only reports never loads Python.
            noted := set_config('tiny_dancer.own_outcomes', appended::text, false);
            IF hashint8(appended) % 500 = 0 THEN
                PERFORM tiny_dancer._roll_up(tiny_dancer.current_tenant());
            END IF;
            RETURN true;
        END IF;
    END IF;
    RETURN tiny_dancer._ok(tiny_dancer._call('update_agent_metrics', jsonb_build_object(
        'name', name, 'latency_ms', latency_ms, 'success', success, 'quality', quality)))::boolean;
END;
$body$;
COMMENT ON FUNCTION @extschema@.ruvector_update_agent_metrics(text, double precision, boolean, double precision) IS
    'Reports the outcome of one request to an agent: latency in milliseconds, whether an answer came, its quality in '
    '[0, 1]; NULL is not measured. Appends a row and waits for nobody. True.';

CREATE FUNCTION @extschema@.ruvector_feedback(
    decision_id text,
    success boolean DEFAULT true,
    quality double precision DEFAULT NULL,
    latency_ms double precision DEFAULT NULL,
    cost double precision DEFAULT NULL,
    output_tokens bigint DEFAULT NULL,
    input_tokens bigint DEFAULT NULL
) RETURNS boolean LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._call('feedback', pg_catalog.jsonb_build_object(
    'decision_id', decision_id, 'success', success, 'quality', quality, 'latency_ms', latency_ms, 'cost_usd', cost,
    'output_tokens', output_tokens, 'input_tokens', input_tokens)))::boolean;
COMMENT ON FUNCTION @extschema@.ruvector_feedback(
    text, boolean, double precision, double precision, double precision, bigint, bigint) IS
    'Reports what came of a recorded decision; the decision and its agent are judged by it. Cost in USD. True.';

CREATE FUNCTION @extschema@.ruvector_routing_stats() RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._read('routing_stats', '{}'));
COMMENT ON FUNCTION @extschema@.ruvector_routing_stats() IS
    'Totals of the tenant: agents, decisions by agent and by objective, outcomes, success rate, estimated and reported cost.';

CREATE FUNCTION @extschema@.ruvector_cache_stats() RETURNS jsonb
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._call('cache_stats', '{}'));
COMMENT ON FUNCTION @extschema@.ruvector_cache_stats() IS
    'How often this session reused a decision for the same request (hits, hit_rate), or the embedding of its text '
    '(embedding_hits); entries, capacity. tiny_dancer.decision_cache_entries sets how many are kept; 0 keeps none.';
