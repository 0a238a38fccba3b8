-- name: graded_features(text, bigint, bigint)
-- Judged outcomes after a number, in order, with what their decisions kept. The conditions on outcomes are those of the
-- index outcomes_graded; what stands in a LATERAL with LIMIT is looked up row by row, whatever the planner
-- believes. Ids are drawn before transactions commit, and readers go on from the last one: so an outcome is left for
-- later as long as a transaction is open that began to write before its own did. (One that began later, drew its id
-- first and commits last may still be passed over: nothing tells of it, and learning outlives the loss.) The age of a
-- row that is billions of transactions old wraps and is negative; one of a transaction that began after this one is,
-- too, but a small number. Answers of removed agents are left out: who is registered under their name later starts anew.
SELECT o.id, a.name, coalesce(o.quality, 0) AS quality, d.features, d.request, o.cost_usd,
       extract(epoch FROM o.occurred_at)::float8 AS occurred_at
FROM tiny_dancer.outcomes AS o
CROSS JOIN LATERAL (
    SELECT kept.features, kept.request
    FROM tiny_dancer.decisions AS kept
    WHERE kept.tenant = $1::text AND kept.decision_id = o.decision_id AND kept.features IS NOT NULL
    LIMIT 1
) AS d
CROSS JOIN LATERAL (
    SELECT known.name
    FROM tiny_dancer.agents AS known
    WHERE known.id = o.agent_id AND known.tenant = $1::text AND known.removed_at IS NULL
    LIMIT 1
) AS a
WHERE o.tenant = $1::text
  AND o.id > $2::bigint
  AND o.decision_id IS NOT NULL
  AND (o.quality IS NOT NULL OR NOT o.success)
  AND pg_catalog.age(o.xmin) NOT BETWEEN -1000000000
      AND pg_catalog.age(pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::xid)
ORDER BY o.id
LIMIT $3::bigint;

-- name: ability_state(text, text)
-- What was learned on top of a model.
SELECT up_to, state FROM tiny_dancer.abilities WHERE tenant = $1::text AND model_sha256 = $2::text;

-- name: save_ability_state(text, text, bigint, bytea)
-- Keeps a state that knows more outcomes than the stored one; a row comes back if it did. Whoever writes here holds an
-- advisory lock to the end of its transaction, and who does not get it at once leaves it be: nobody ever waits for
-- another's open transaction, and nobody's is refused for being too late.
INSERT INTO tiny_dancer.abilities AS kept (tenant, model_sha256, up_to, state)
SELECT $1::text, $2::text, $3::bigint, $4::bytea
WHERE CASE WHEN pg_catalog.current_setting('transaction_isolation') = 'read committed'
           THEN pg_catalog.pg_try_advisory_xact_lock(1413762629, pg_catalog.hashtext($1::text))
           ELSE false
      END
ON CONFLICT (tenant, model_sha256) DO UPDATE SET up_to = excluded.up_to, state = excluded.state
WHERE excluded.up_to > kept.up_to
RETURNING true AS saved;
