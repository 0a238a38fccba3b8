-- Budgets. A change counts in every session from its next statement on; who may change them is decided by the privileges
-- on the tables, as everywhere. Routing under a budget keeps the budget's row locked until the transaction ends.

CREATE FUNCTION tiny_dancer._change_budgets(operation text, arguments jsonb) RETURNS jsonb
    LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $body$
if "tiny_dancer-@VERSION@" not in GD and (failed := plpy.execute("SELECT tiny_dancer._boot() AS it")[0]["it"]): return failed
from tinydancer import plpy_budgets
return plpy_budgets.call(GD["tiny_dancer-@VERSION@"], operation, arguments)
$body$;
COMMENT ON FUNCTION tiny_dancer._change_budgets(text, jsonb) IS
    'Internal. As _call, for operations on budgets.';

CREATE FUNCTION @extschema@.ruvector_create_budget(
    name text,
    amount_usd double precision,
    period text DEFAULT 'month',
    scope text DEFAULT 'tenant',
    scope_value text DEFAULT NULL,
    on_limit text DEFAULT 'refuse',
    pacing text DEFAULT 'none',
    alert_at double precision[] DEFAULT NULL,
    time_zone text DEFAULT 'UTC',
    starts_at timestamptz DEFAULT NULL,
    ends_at timestamptz DEFAULT NULL,
    burst double precision DEFAULT NULL,
    release_after interval DEFAULT NULL,
    is_active boolean DEFAULT true
) RETURNS boolean LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._change_budgets('create_budget', pg_catalog.jsonb_build_object(
    'name', name, 'amount_usd', amount_usd, 'period', period, 'scope', scope, 'scope_value', scope_value,
    'on_limit', on_limit, 'pacing', pacing, 'alert_at', alert_at, 'time_zone', time_zone,
    'starts_at', extract(epoch FROM starts_at), 'ends_at', extract(epoch FROM ends_at), 'burst', burst,
    'release_after_s', extract(epoch FROM release_after), 'is_active', is_active)))::boolean;
COMMENT ON FUNCTION @extschema@.ruvector_create_budget(
    text, double precision, text, text, text, text, text, double precision[], text, timestamptz, timestamptz,
    double precision, interval, boolean) IS
    'Creates a budget of so many USD per period; true. period: hour, day, week, month, year, total, or a number of days, '
    'by the clock of time_zone. scope: tenant, agent, key or tag, with whose name in scope_value. on_limit: refuse, '
    'cheapest or free. pacing: none, or even with a burst (a share of the amount). alert_at: shares of the amount. '
    'release_after: when a request whose outcome is not reported no longer counts. A name that is taken is an error '
    '(42710), and so is an agent that is not registered (42704).';

CREATE FUNCTION @extschema@.ruvector_update_budget(name text, changes jsonb) RETURNS boolean
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._change_budgets('update_budget',
    pg_catalog.jsonb_build_object('name', name, 'changes', changes)))::boolean;
COMMENT ON FUNCTION @extschema@.ruvector_update_budget(text, jsonb) IS
    'Changes some fields of a budget, {"amount_usd": 50} for example; what was spent stays. Instants are texts as '
    'PostgreSQL prints them, or seconds since 1970; release_after_s is in seconds. True.';

CREATE FUNCTION @extschema@.ruvector_remove_budget(name text) RETURNS boolean
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._change_budgets('remove_budget',
    pg_catalog.jsonb_build_object('name', name)))::boolean;
COMMENT ON FUNCTION @extschema@.ruvector_remove_budget(text) IS
    'Removes a budget with its accounts; its alerts stay. True.';

CREATE FUNCTION @extschema@.ruvector_list_budgets() RETURNS TABLE (
    name text, amount_usd double precision, spent_usd double precision, reserved_usd double precision,
    remaining_usd double precision, ceiling_usd double precision, period text, period_start timestamptz,
    period_end timestamptz, scope text, scope_value text, on_limit text, pacing text, burst double precision,
    alert_at double precision[], time_zone text, starts_at timestamptz, ends_at timestamptz,
    release_after_s double precision, is_active boolean, is_open boolean
) LANGUAGE sql VOLATILE PARALLEL UNSAFE ROWS 10
BEGIN ATOMIC
    SELECT b.name, b.amount_usd, b.spent_usd, b.reserved_usd, b.remaining_usd, b.ceiling_usd, b.period, b.period_start,
           b.period_end, b.scope, b.scope_value, b.on_limit, b.pacing, b.burst, b.alert_at, b.time_zone, b.starts_at,
           b.ends_at, b.release_after_s, b.is_active, b.is_open
    FROM pg_catalog.jsonb_to_recordset(tiny_dancer._ok(tiny_dancer._change_budgets('list_budgets', '{}'))) AS b (
        name text, amount_usd double precision, spent_usd double precision, reserved_usd double precision,
        remaining_usd double precision, ceiling_usd double precision, period text, period_start timestamptz,
        period_end timestamptz, scope text, scope_value text, on_limit text, pacing text, burst double precision,
        alert_at double precision[], time_zone text, starts_at timestamptz, ends_at timestamptz,
        release_after_s double precision, is_active boolean, is_open boolean);
END;
COMMENT ON FUNCTION @extschema@.ruvector_list_budgets() IS
    'Every budget of the tenant in order of name, with what is spent and reserved of its present period. ceiling_usd: '
    'what may have been spent by now; is_open: whether the budget holds now.';

CREATE FUNCTION @extschema@.ruvector_budget_alerts(time_range interval DEFAULT '7 days') RETURNS TABLE (
    budget text, share double precision, used_usd double precision, amount_usd double precision,
    period_start timestamptz, raised_at timestamptz
) LANGUAGE sql VOLATILE PARALLEL UNSAFE ROWS 10
BEGIN ATOMIC
    SELECT a.budget, a.share, a.used_usd, a.amount_usd, a.period_start, a.raised_at
    FROM pg_catalog.jsonb_to_recordset(tiny_dancer._ok(tiny_dancer._change_budgets('budget_alerts',
        pg_catalog.jsonb_build_object('time_range', time_range::text)))) AS a (
        budget text, share double precision, used_usd double precision, amount_usd double precision,
        period_start timestamptz, raised_at timestamptz);
END;
COMMENT ON FUNCTION @extschema@.ruvector_budget_alerts(interval) IS
    'The shares of budgets that were passed in the latest time, the latest first. Sessions that LISTEN to '
    'tiny_dancer_budget are told of each as it is raised, as JSON.';
