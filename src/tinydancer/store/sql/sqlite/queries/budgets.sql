-- name: list_budgets
-- Every budget in order of name.
SELECT id, revision, name, amount_usd, period, scope, scope_value, time_zone, starts_at, ends_at, on_limit, pacing, burst,
       alert_at, release_after_s, is_active
FROM budgets
WHERE tenant = ?1
ORDER BY name;

-- name: insert_budget
-- Keeps a new budget.
INSERT INTO budgets (tenant, name, amount_usd, period, scope, scope_value, time_zone, starts_at, ends_at, on_limit, pacing,
                     burst, alert_at, release_after_s, is_active, created_at, updated_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?16);

-- name: update_budget
-- Overwrites a budget; what was spent and reserved stays. The parameters are those of insert_budget.
UPDATE budgets
SET revision = revision + 1, amount_usd = ?3, period = ?4, scope = ?5, scope_value = ?6, time_zone = ?7, starts_at = ?8,
    ends_at = ?9, on_limit = ?10, pacing = ?11, burst = ?12, alert_at = ?13, release_after_s = ?14, is_active = ?15,
    updated_at = ?16
WHERE tenant = ?1 AND name = ?2;

-- name: delete_budget
-- Removes a budget, and with it its accounts and reservations; its alerts stay.
DELETE FROM budgets WHERE tenant = ?1 AND name = ?2;

-- name: has_budgets
-- Whether the tenant has a budget at all.
SELECT EXISTS (SELECT 1 FROM budgets WHERE tenant = ?1);

-- name: budget_revision
-- The revision of an active budget.
SELECT revision FROM budgets WHERE tenant = ?1 AND id = ?2 AND is_active = 1;

-- name: budget_use
-- What is spent and reserved of a budget's period; no row before the first request.
SELECT spent_usd, reserved_usd, alerted FROM budget_periods WHERE tenant = ?1 AND budget_id = ?2 AND period = ?3;

-- name: charge
-- What comes onto the reservations of a budget's period, or off them, and what is spent.
INSERT INTO budget_periods (tenant, budget_id, period, reserved_usd, spent_usd) VALUES (?1, ?2, ?3, max(0, ?4), ?5)
ON CONFLICT (tenant, budget_id, period) DO UPDATE
SET reserved_usd = max(0, reserved_usd + ?4), spent_usd = spent_usd + ?5;

-- name: insert_reservation
-- What a decision is expected to cost a budget.
INSERT INTO budget_reservations (tenant, decision_id, agent_name, budget_id, period, amount_usd, reserved_at, release_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8);

-- name: take_due
-- Takes away a budget's reservations whose time is up.
DELETE FROM budget_reservations
WHERE tenant = ?1 AND budget_id = ?2 AND release_at <= ?3
RETURNING budget_id, period, amount_usd;

-- name: has_due
-- Whether the time of a reservation of a budget is up.
SELECT EXISTS (SELECT 1 FROM budget_reservations WHERE tenant = ?1 AND budget_id = ?2 AND release_at <= ?3);

-- name: take_reservations
-- Takes the reservations of a decision away.
DELETE FROM budget_reservations
WHERE tenant = ?1 AND decision_id = ?2
RETURNING decision_id, budget_id, period, amount_usd;

-- name: decision_context
-- Whose request a decision was for.
SELECT context FROM decisions WHERE tenant = ?1 AND decision_id = ?2 AND context IS NOT NULL;

-- name: reserved_agent
-- The agent that a decision under a budget was made for, until its outcome is reported.
SELECT agent_name FROM budget_reservations WHERE tenant = ?1 AND decision_id = ?2 LIMIT 1;

-- name: raise_alert
-- Keeps an alert unless it was told already.
INSERT INTO budget_alerts (tenant, budget_id, budget_name, period, share, used_usd, amount_usd, raised_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
ON CONFLICT (tenant, budget_id, period, share) DO NOTHING;

-- name: mark_alerted
-- The highest share that was told of a budget's period.
UPDATE budget_periods SET alerted = max(alerted, ?4) WHERE tenant = ?1 AND budget_id = ?2 AND period = ?3;

-- name: budget_alerts
-- Alerts since an instant, the latest first.
SELECT budget_name, period, share, used_usd, amount_usd, raised_at
FROM budget_alerts
WHERE tenant = ?1 AND raised_at >= ?2
ORDER BY id DESC;
