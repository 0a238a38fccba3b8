-- Sessions lock the row of a budget's period in order of the budget, after the reservations they take away, so that none
-- waits for one that waits for it.

-- name: list_budgets(text)
-- Every budget in order of name.
SELECT id, revision, name, amount_usd, period, scope, scope_value, time_zone,
       extract(epoch FROM starts_at)::float8 AS starts_at, extract(epoch FROM ends_at)::float8 AS ends_at, on_limit, pacing,
       burst, alert_at, release_after_s, is_active
FROM tiny_dancer.budgets
WHERE tenant = $1::text
ORDER BY name;

-- name: insert_budget(text, text, float8, text, text, text, text, float8, float8, text, text, float8, float8[], float8, boolean, float8)
-- Keeps a new budget.
INSERT INTO tiny_dancer.budgets (tenant, name, amount_usd, period, scope, scope_value, time_zone, starts_at, ends_at,
                                 on_limit, pacing, burst, alert_at, release_after_s, is_active, created_at, updated_at)
VALUES ($1::text, $2::text, $3::float8, $4::text, $5::text, $6::text, $7::text, pg_catalog.to_timestamp($8::float8),
        pg_catalog.to_timestamp($9::float8), $10::text, $11::text, $12::float8, $13::float8[], $14::float8, $15::boolean,
        pg_catalog.to_timestamp($16::float8), pg_catalog.to_timestamp($16::float8));

-- name: update_budget(text, text, float8, text, text, text, text, float8, float8, text, text, float8, float8[], float8, boolean, float8)
-- Overwrites a budget; what was spent and reserved stays. No row if there is none of that name.
UPDATE tiny_dancer.budgets
SET revision = revision + 1, amount_usd = $3::float8, period = $4::text, scope = $5::text, scope_value = $6::text,
    time_zone = $7::text, starts_at = pg_catalog.to_timestamp($8::float8), ends_at = pg_catalog.to_timestamp($9::float8),
    on_limit = $10::text, pacing = $11::text, burst = $12::float8, alert_at = $13::float8[], release_after_s = $14::float8,
    is_active = $15::boolean, updated_at = pg_catalog.to_timestamp($16::float8)
WHERE tenant = $1::text AND name = $2::text
RETURNING id;

-- name: delete_budget(text, text)
-- Removes a budget with its accounts and reservations; its alerts stay. No row if there is none of that name.
WITH gone AS (
    DELETE FROM tiny_dancer.budgets WHERE tenant = $1::text AND name = $2::text RETURNING id
), forgotten AS (
    DELETE FROM tiny_dancer.budget_reservations WHERE tenant = $1::text AND budget_id IN (SELECT id FROM gone)
)
SELECT id FROM gone;

-- name: budget_uses(text, bigint[], bigint[])
-- What is spent and reserved, given budgets and their periods.
SELECT p.budget_id, p.period, p.spent_usd, p.reserved_usd, p.alerted
FROM unnest($2::bigint[], $3::bigint[]) AS w (budget_id, period)
JOIN tiny_dancer.budget_periods AS p ON p.tenant = $1::text AND p.budget_id = w.budget_id AND p.period = w.period;

-- name: begin_budget_periods(text, bigint[], bigint[])
-- Rows for the first requests of periods; other sessions' stay. None for a budget that was removed.
INSERT INTO tiny_dancer.budget_periods (tenant, budget_id, period)
SELECT b.tenant, b.id, w.period
FROM unnest($2::bigint[], $3::bigint[]) AS w (budget_id, period)
JOIN tiny_dancer.budgets AS b ON b.tenant = $1::text AND b.id = w.budget_id
ORDER BY b.id
ON CONFLICT (tenant, budget_id, period) DO NOTHING;

-- name: reserve(text, bigint[], integer[], bigint[], float8[], float8[], float8, text[], text[], bigint[], bigint[], float8[], float8[])
-- Reserves of several budgets, of all or of none: their revisions, periods, amounts, and how much of each may be used
-- already. Then the instant, and the reservations by decision. Answers with what was spent and reserved before, and
-- whether it is granted. A budget that was changed or removed, or whose period has no row yet, is not in the answer.
WITH wanted AS (
    SELECT w.budget_id, w.revision, w.period, w.amount_usd, w.used_at_most
    FROM unnest($2::bigint[], $3::integer[], $4::bigint[], $5::float8[], $6::float8[])
         AS w (budget_id, revision, period, amount_usd, used_at_most)
), locked AS (
    SELECT p.budget_id, p.period, p.spent_usd, p.reserved_usd, p.alerted, w.amount_usd, w.used_at_most
    FROM wanted AS w
    JOIN tiny_dancer.budgets AS b
        ON b.tenant = $1::text AND b.id = w.budget_id AND b.revision = w.revision AND b.is_active
    JOIN tiny_dancer.budget_periods AS p ON p.tenant = $1::text AND p.budget_id = w.budget_id AND p.period = w.period
    ORDER BY p.budget_id
    FOR UPDATE OF p
), verdict AS (
    SELECT count(*) = cardinality($2::bigint[]) AND coalesce(bool_and(spent_usd + reserved_usd <= used_at_most), true)
               AS granted
    FROM locked
), counted AS (
    UPDATE tiny_dancer.budget_periods AS p
    SET reserved_usd = p.reserved_usd + l.amount_usd
    FROM locked AS l, verdict AS v
    WHERE v.granted AND l.amount_usd > 0 AND p.tenant = $1::text AND p.budget_id = l.budget_id AND p.period = l.period
), noted AS (
    INSERT INTO tiny_dancer.budget_reservations (
        tenant, decision_id, agent_name, budget_id, period, amount_usd, reserved_at, release_at)
    SELECT $1::text, r.decision_id, r.agent_name, r.budget_id, r.period, r.amount_usd, pg_catalog.to_timestamp($7::float8),
           pg_catalog.to_timestamp(r.release_at)
    FROM unnest($8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::float8[], $13::float8[])
             AS r (decision_id, agent_name, budget_id, period, amount_usd, release_at),
         verdict AS v
    WHERE v.granted
)
SELECT v.granted, l.budget_id, l.period, l.spent_usd, l.reserved_usd, l.alerted
FROM verdict AS v
LEFT JOIN locked AS l ON true;

-- name: reserve_one(text, bigint, integer, bigint, float8, float8, float8, text, text, float8)
-- As reserve, of one budget for one decision (NULL where its amount is 0), in half the time; no row if it is not granted.
WITH granted AS (
    UPDATE tiny_dancer.budget_periods AS p
    SET reserved_usd = p.reserved_usd + $5::float8
    FROM tiny_dancer.budgets AS b
    WHERE b.tenant = $1::text AND b.id = $2::bigint AND b.revision = $3::integer AND b.is_active
      AND p.tenant = $1::text AND p.budget_id = b.id AND p.period = $4::bigint
      AND p.spent_usd + p.reserved_usd <= $6::float8
    RETURNING p.budget_id, p.period, p.spent_usd, greatest(0, p.reserved_usd - $5::float8) AS reserved_usd, p.alerted
), noted AS (
    INSERT INTO tiny_dancer.budget_reservations (
        tenant, decision_id, agent_name, budget_id, period, amount_usd, reserved_at, release_at)
    SELECT $1::text, $8::text, $9::text, budget_id, period, $5::float8, pg_catalog.to_timestamp($7::float8),
           pg_catalog.to_timestamp($10::float8)
    FROM granted
    WHERE $8::text IS NOT NULL
)
SELECT budget_id, period, spent_usd, reserved_usd, alerted FROM granted;

-- name: release_due(text, bigint[], float8)
-- Gives back, of some budgets, the reservations whose time is up; those that another session is at are left to it.
WITH due AS (
    SELECT decision_id, budget_id
    FROM tiny_dancer.budget_reservations
    WHERE tenant = $1::text AND budget_id = ANY ($2::bigint[]) AND release_at <= pg_catalog.to_timestamp($3::float8)
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM tiny_dancer.budget_reservations AS r
    USING due AS d
    WHERE r.tenant = $1::text AND r.decision_id = d.decision_id AND r.budget_id = d.budget_id
    RETURNING r.budget_id, r.period, r.amount_usd
), sums AS (
    SELECT budget_id, period, sum(amount_usd) AS amount_usd FROM gone GROUP BY budget_id, period
), locked AS (
    SELECT p.budget_id, p.period, s.amount_usd
    FROM sums AS s
    JOIN tiny_dancer.budget_periods AS p ON p.tenant = $1::text AND p.budget_id = s.budget_id AND p.period = s.period
    ORDER BY p.budget_id, p.period
    FOR UPDATE OF p
)
UPDATE tiny_dancer.budget_periods AS p
SET reserved_usd = greatest(0, p.reserved_usd - l.amount_usd)
FROM locked AS l
WHERE p.tenant = $1::text AND p.budget_id = l.budget_id AND p.period = l.period;

-- name: take_reservations(text, text[])
-- Takes the reservations of decisions away, for whoever settles or gives them back.
WITH held AS (
    SELECT decision_id, budget_id
    FROM tiny_dancer.budget_reservations
    WHERE tenant = $1::text AND decision_id = ANY ($2::text[])
    ORDER BY decision_id, budget_id
    FOR UPDATE
)
DELETE FROM tiny_dancer.budget_reservations AS r
USING held AS h
WHERE r.tenant = $1::text AND r.decision_id = h.decision_id AND r.budget_id = h.budget_id
RETURNING r.decision_id, r.budget_id, r.period, r.amount_usd;

-- name: charge(text, bigint[], bigint[], float8[], float8[])
-- What comes off the reservations of budgets' periods, and what is spent instead.
WITH charges AS (
    SELECT c.budget_id, c.period, c.reserved_usd, c.spent_usd
    FROM unnest($2::bigint[], $3::bigint[], $4::float8[], $5::float8[]) AS c (budget_id, period, reserved_usd, spent_usd)
), locked AS (
    SELECT p.budget_id, p.period, c.reserved_usd, c.spent_usd
    FROM charges AS c
    JOIN tiny_dancer.budget_periods AS p ON p.tenant = $1::text AND p.budget_id = c.budget_id AND p.period = c.period
    ORDER BY p.budget_id, p.period
    FOR UPDATE OF p
)
UPDATE tiny_dancer.budget_periods AS p
SET reserved_usd = greatest(0, p.reserved_usd - l.reserved_usd), spent_usd = p.spent_usd + l.spent_usd
FROM locked AS l
WHERE p.tenant = $1::text AND p.budget_id = l.budget_id AND p.period = l.period;

-- name: decision_contexts(text, text[])
-- Whose requests decisions were for.
SELECT decision_id, context::text AS context
FROM tiny_dancer.decisions
WHERE tenant = $1::text AND decision_id = ANY ($2::text[]) AND context IS NOT NULL;

-- name: reserved_agent(text, text)
-- The agent that a decision under a budget was made for, until its outcome is reported.
SELECT agent_name FROM tiny_dancer.budget_reservations WHERE tenant = $1::text AND decision_id = $2::text LIMIT 1;

-- name: raise_alerts(text, bigint, bigint, float8[], float8, float8, jsonb)
-- Keeps alerts that were not told yet, marks the period, and tells whoever listens. The object is what they are told,
-- apart from the share; the shares that are new come back.
WITH raised AS (
    INSERT INTO tiny_dancer.budget_alerts (
        tenant, budget_id, budget_name, period, share, used_usd, amount_usd, raised_at)
    SELECT $1::text, $2::bigint, $7::jsonb ->> 'budget', $3::bigint, share, $5::float8, ($7::jsonb ->> 'amount_usd')::float8,
           pg_catalog.to_timestamp($6::float8)
    FROM unnest($4::float8[]) AS share
    ON CONFLICT (tenant, budget_id, period, share) DO NOTHING
    RETURNING share
), marked AS (
    UPDATE tiny_dancer.budget_periods AS p
    SET alerted = greatest(p.alerted, (SELECT max(share) FROM unnest($4::float8[]) AS share))
    WHERE p.tenant = $1::text AND p.budget_id = $2::bigint AND p.period = $3::bigint
)
SELECT r.share,
       pg_catalog.pg_notify('tiny_dancer_budget', ($7::jsonb || pg_catalog.jsonb_build_object('share', r.share))::text)::text
           AS told
FROM raised AS r
ORDER BY r.share;

-- name: budget_alerts(text, float8)
-- Alerts since an instant, the latest first.
SELECT budget_name, period, share, used_usd, amount_usd, extract(epoch FROM raised_at)::float8 AS raised_at
FROM tiny_dancer.budget_alerts
WHERE tenant = $1::text AND raised_at >= pg_catalog.to_timestamp($2::float8)
ORDER BY id DESC;
