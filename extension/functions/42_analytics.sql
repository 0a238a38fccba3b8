-- What the traffic came to, and what it would have come to at one agent.

CREATE FUNCTION tiny_dancer._analytics(operation text, arguments jsonb) RETURNS jsonb
    LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $body$
if "tiny_dancer-@VERSION@" not in GD and (failed := plpy.execute("SELECT tiny_dancer._boot() AS it")[0]["it"]): return failed
from tinydancer import plpy_analytics
return plpy_analytics.call(GD["tiny_dancer-@VERSION@"], operation, arguments)
$body$;
COMMENT ON FUNCTION tiny_dancer._analytics(text, jsonb) IS
    'Internal. As _call, for the traffic.';

CREATE FUNCTION tiny_dancer._read_analytics(operation text, arguments jsonb) RETURNS jsonb
    LANGUAGE plpython3u STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $body$
if "tiny_dancer-@VERSION@" not in GD and (failed := plpy.execute("SELECT tiny_dancer._boot() AS it")[0]["it"]): return failed
from tinydancer import plpy_analytics
return plpy_analytics.call(GD["tiny_dancer-@VERSION@"], operation, arguments)
$body$;
COMMENT ON FUNCTION tiny_dancer._read_analytics(text, jsonb) IS
    'Internal. As _read, for the traffic.';

CREATE FUNCTION @extschema@.ruvector_routing_analytics(
    time_range text DEFAULT '7 days',
    group_by text DEFAULT 'agent',
    baseline text DEFAULT NULL,
    time_zone text DEFAULT 'UTC'
) RETURNS TABLE (
    agent text, total_requests bigint, total_cost double precision, avg_latency_ms double precision,
    success_rate double precision, p50_latency_ms double precision, p95_latency_ms double precision,
    p99_latency_ms double precision, quality double precision, judged bigint, expected_quality double precision,
    avg_cost double precision, costs_reported bigint, costs_estimated bigint, compared_requests bigint,
    baseline_cost double precision, saved double precision, saved_low double precision, saved_high double precision,
    saved_share double precision, cost_basis text, baseline_quality double precision,
    baseline_quality_low double precision, baseline_quality_high double precision, quality_change double precision,
    quality_change_low double precision, quality_change_high double precision
) LANGUAGE sql STABLE PARALLEL UNSAFE ROWS 30
BEGIN ATOMIC
    SELECT t.agent, t.total_requests, t.total_cost, t.avg_latency_ms, t.success_rate, t.p50_latency_ms,
           t.p95_latency_ms, t.p99_latency_ms, t.quality, t.judged, t.expected_quality, t.avg_cost, t.costs_reported,
           t.costs_estimated, t.compared_requests, t.baseline_cost, t.saved, t.saved_low, t.saved_high, t.saved_share,
           t.cost_basis, t.baseline_quality, t.baseline_quality_low, t.baseline_quality_high, t.quality_change,
           t.quality_change_low, t.quality_change_high
    FROM pg_catalog.jsonb_to_recordset(tiny_dancer._ok(tiny_dancer._read_analytics('routing_analytics',
        pg_catalog.jsonb_build_object('time_range', time_range, 'group_by', group_by, 'baseline', baseline,
            'time_zone', time_zone)))) AS t (
        agent text, total_requests bigint, total_cost double precision, avg_latency_ms double precision,
        success_rate double precision, p50_latency_ms double precision, p95_latency_ms double precision,
        p99_latency_ms double precision, quality double precision, judged bigint, expected_quality double precision,
        avg_cost double precision, costs_reported bigint, costs_estimated bigint, compared_requests bigint,
        baseline_cost double precision, saved double precision, saved_low double precision,
        saved_high double precision, saved_share double precision, cost_basis text, baseline_quality double precision,
        baseline_quality_low double precision, baseline_quality_high double precision,
        quality_change double precision, quality_change_low double precision, quality_change_high double precision);
END;
COMMENT ON FUNCTION @extschema@.ruvector_routing_analytics(text, text, text, text) IS
    'The outcomes of a time range (7 days, 24 hours, 1 mon, P7D) by agent, route, tenant, task, day, hour or objective; '
    'the column agent holds the group, NULL for outcomes without one. Costs in USD, as reported or else as estimated; '
    'percentiles within 3%. With a baseline: what always using that agent would have cost (saved is that minus what was '
    'paid) and its quality, with 95% intervals where something is predicted from a sample. time_zone: whose days and hours.';

CREATE FUNCTION @extschema@.ruvector_routing_analytics(
    time_range interval,
    group_by text DEFAULT 'agent',
    baseline text DEFAULT NULL,
    time_zone text DEFAULT 'UTC'
) RETURNS TABLE (
    agent text, total_requests bigint, total_cost double precision, avg_latency_ms double precision,
    success_rate double precision, p50_latency_ms double precision, p95_latency_ms double precision,
    p99_latency_ms double precision, quality double precision, judged bigint, expected_quality double precision,
    avg_cost double precision, costs_reported bigint, costs_estimated bigint, compared_requests bigint,
    baseline_cost double precision, saved double precision, saved_low double precision, saved_high double precision,
    saved_share double precision, cost_basis text, baseline_quality double precision,
    baseline_quality_low double precision, baseline_quality_high double precision, quality_change double precision,
    quality_change_low double precision, quality_change_high double precision
) LANGUAGE sql STABLE PARALLEL UNSAFE ROWS 30
BEGIN ATOMIC
    SELECT t.agent, t.total_requests, t.total_cost, t.avg_latency_ms, t.success_rate, t.p50_latency_ms,
           t.p95_latency_ms, t.p99_latency_ms, t.quality, t.judged, t.expected_quality, t.avg_cost, t.costs_reported,
           t.costs_estimated, t.compared_requests, t.baseline_cost, t.saved, t.saved_low, t.saved_high, t.saved_share,
           t.cost_basis, t.baseline_quality, t.baseline_quality_low, t.baseline_quality_high, t.quality_change,
           t.quality_change_low, t.quality_change_high
    FROM @extschema@.ruvector_routing_analytics(time_range::text, group_by, baseline, time_zone) AS t;
END;
COMMENT ON FUNCTION @extschema@.ruvector_routing_analytics(interval, text, text, text) IS
    'As with a text.';

CREATE FUNCTION tiny_dancer.rebuild_traffic() RETURNS bigint
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._analytics('rebuild_traffic', '{}'))::bigint;
COMMENT ON FUNCTION tiny_dancer.rebuild_traffic() IS
    'Adds up the tenant''s traffic anew from the record of outcomes, for those that were reported before there was such a '
    'sum; how many it has. For tiny_dancer_admin. Takes some ten seconds per million.';
