-- Plans: several agents for one request, and what a month's budget is best spent on. Batches under one account
-- (total_cost) come in through _route_many, which hands them to the same module.

CREATE FUNCTION tiny_dancer._plan(operation text, arguments jsonb) RETURNS jsonb
    LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $body$
if "tiny_dancer-@VERSION@" not in GD and (failed := plpy.execute("SELECT tiny_dancer._boot() AS it")[0]["it"]): return failed
from tinydancer import plpy_plan
return plpy_plan.call(GD["tiny_dancer-@VERSION@"], operation, arguments)
$body$;
COMMENT ON FUNCTION tiny_dancer._plan(text, jsonb) IS
    'Internal. As _call, for plans whose decisions are recorded.';

CREATE FUNCTION tiny_dancer._read_plan(operation text, arguments jsonb) RETURNS jsonb
    LANGUAGE plpython3u STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $body$
if "tiny_dancer-@VERSION@" not in GD and (failed := plpy.execute("SELECT tiny_dancer._boot() AS it")[0]["it"]): return failed
from tinydancer import plpy_plan
return plpy_plan.call(GD["tiny_dancer-@VERSION@"], operation, arguments)
$body$;
COMMENT ON FUNCTION tiny_dancer._read_plan(text, jsonb) IS
    'Internal. As _read, for plans that record nothing.';

CREATE FUNCTION @extschema@.ruvector_route_multi(
    request text,
    num_agents integer DEFAULT 3,
    strategy text DEFAULT 'pipeline',
    constraints jsonb DEFAULT NULL,
    options jsonb DEFAULT NULL
) RETURNS TABLE (
    "position" integer, role text, agent_name text, confidence double precision, estimated_cost double precision,
    estimated_latency text, estimated_latency_ms double precision, expected_quality double precision,
    similarity_score double precision, escalate_below double precision, reached double precision, reasoning text,
    combined_quality double precision, combined_cost double precision, combined_latency_ms double precision,
    is_optimal boolean, model text, strategy_used text, decision_id text
) LANGUAGE sql VOLATILE PARALLEL UNSAFE ROWS 3
BEGIN ATOMIC
    SELECT t."position", t.role, t.agent_name, t.confidence, t.estimated_cost, t.estimated_latency,
           t.estimated_latency_ms, t.expected_quality, t.similarity_score, t.escalate_below, t.reached, t.reasoning,
           t.combined_quality, t.combined_cost, t.combined_latency_ms, t.is_optimal, t.model, t.strategy, t.decision_id
    FROM pg_catalog.jsonb_to_recordset(tiny_dancer._ok(tiny_dancer._plan('route_multi',
        pg_catalog.jsonb_build_object('request', request, 'num_agents', num_agents, 'strategy', strategy,
            'constraints', constraints, 'options', options)))) AS t (
        "position" integer, role text, agent_name text, confidence double precision, estimated_cost double precision,
        estimated_latency text, estimated_latency_ms double precision, expected_quality double precision,
        similarity_score double precision, escalate_below double precision, reached double precision, reasoning text,
        combined_quality double precision, combined_cost double precision, combined_latency_ms double precision,
        is_optimal boolean, model text, strategy text, decision_id text);
END;
COMMENT ON FUNCTION @extschema@.ruvector_route_multi(text, integer, text, jsonb, jsonb) IS
    'Chooses several agents for one request: pipeline (a stage each), parallel (side by side, good and different), '
    'ensemble (the set of the best combined answer) or cascade (in turn, until an answer''s confidence reaches '
    'escalate_below). constraints as for ruvector_route, budget_remaining for the whole team; options: stages, optimize_for, '
    'quality_target, combination, correlation, family_correlation, self_knowledge, and whose request it is: key, tags, task, '
    'route_name. The combined figures are the team''s.';

CREATE FUNCTION @extschema@.ruvector_optimize_budget(
    monthly_budget double precision,
    quality_threshold double precision DEFAULT 0.8,
    latency_threshold_ms double precision DEFAULT 5000.0,
    requests_per_month double precision DEFAULT NULL
) RETURNS jsonb LANGUAGE sql STABLE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._read_plan('optimize_budget',
    pg_catalog.jsonb_build_object('monthly_budget', monthly_budget, 'quality_threshold', quality_threshold,
        'latency_threshold_ms', latency_threshold_ms, 'requests_per_month', requests_per_month)));
COMMENT ON FUNCTION @extschema@.ruvector_optimize_budget(double precision, double precision, double precision, double precision) IS
    'What a month''s budget is best spent on, for the traffic that was observed: allocations (USD per agent), total_budget and '
    'period_days, the expected quality, the share of requests per agent, whether the threshold is met and what would '
    'meet it. Without traffic every agent is taken to serve equally many usual requests, and assumption says so.';
