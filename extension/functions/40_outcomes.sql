-- What came of requests, and the totals.

-- Reports of agents come by the thousand, and Python would take most of their time. So a report with nothing wrong in it
-- stays within SQL, and every other one takes the long way, which knows what is wrong and says it.

CREATE FUNCTION tiny_dancer._latency_bucket(latency_ms double precision) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
-- There: ceil(round(x, 9)) with x the logarithm. That is the next number above exactly where more than half of 1e-9 is
-- left over, and what is left over is exact, while no round(double precision) here takes digits.
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

CREATE FUNCTION tiny_dancer._note_outcome() RETURNS void
    LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $body$
session = GD.get("tiny_dancer-@VERSION@")
for service in session._services.values() if session else (): service.record_outcomes(())
$body$;
COMMENT ON FUNCTION tiny_dancer._note_outcome() IS
    'Internal. Lets the next decision of this session count an outcome that was appended without Python.';

CREATE FUNCTION tiny_dancer._roll_up() RETURNS jsonb
    LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $body$
if "tiny_dancer-@VERSION@" not in GD and (failed := plpy.execute("SELECT tiny_dancer._boot() AS it")[0]["it"]): return failed
return (session := GD["tiny_dancer-@VERSION@"])._answer(lambda _: session._service().store.roll_up(), None)
$body$;
COMMENT ON FUNCTION tiny_dancer._roll_up() IS
    'Internal. Moves the tail of outcomes into the statistics; how many, or the error.';

CREATE FUNCTION @extschema@.ruvector_update_agent_metrics(
    name text,
    latency_ms double precision DEFAULT NULL,
    success boolean DEFAULT true,
    quality double precision DEFAULT NULL
) RETURNS boolean LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $body$
#variable_conflict use_variable
DECLARE
    due boolean;
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
        RETURNING hashint8(outcome_id) % 500 = 0 INTO due;
        IF FOUND THEN
            PERFORM tiny_dancer._note_outcome();
            IF due THEN
                PERFORM tiny_dancer._ok(tiny_dancer._roll_up());
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
