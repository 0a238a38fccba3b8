-- What came of requests, and the totals.

CREATE FUNCTION @extschema@.ruvector_update_agent_metrics(
    name text,
    latency_ms double precision DEFAULT NULL,
    success boolean DEFAULT true,
    quality double precision DEFAULT NULL
) RETURNS boolean LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._call('update_agent_metrics', pg_catalog.jsonb_build_object(
    'name', name, 'latency_ms', latency_ms, 'success', success, 'quality', quality)))::boolean;
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
