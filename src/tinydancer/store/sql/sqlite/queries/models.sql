-- name: insert_model
-- Stores a model that does not decide yet; the table refuses a name that is taken.
INSERT INTO models (tenant, kind, name, sha256, artifact, metadata, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7);

-- name: put_model
-- As insert_model, over one of that name, which goes on deciding if it did.
INSERT INTO models (tenant, kind, name, sha256, artifact, metadata, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
ON CONFLICT (tenant, kind, name) DO UPDATE
SET sha256 = excluded.sha256, artifact = excluded.artifact, metadata = excluded.metadata,
    created_at = excluded.created_at;

-- name: list_models
-- The stored models of one kind, or with NULL of all. The row without an artifact stands for the shipped one.
SELECT kind, name, sha256, length(artifact), metadata, is_active, created_at
FROM models
WHERE tenant = ?1 AND (?2 IS NULL OR kind = ?2) AND artifact IS NOT NULL
ORDER BY kind, name;

-- name: get_model
-- One stored model without its weights.
SELECT kind, name, sha256, length(artifact), metadata, is_active, created_at
FROM models
WHERE tenant = ?1 AND kind = ?2 AND name = ?3 AND artifact IS NOT NULL;

-- name: active_model
-- The row that was made active, which has no length where it stands for the shipped one; no row where none decides.
SELECT kind, name, sha256, length(artifact), metadata, is_active, created_at
FROM models
WHERE tenant = ?1 AND kind = ?2 AND is_active = 1;

-- name: model_artifact
-- The weights of one stored model.
SELECT artifact FROM models WHERE tenant = ?1 AND kind = ?2 AND name = ?3 AND artifact IS NOT NULL;

-- name: model_names
-- Names of the stored models of one kind.
SELECT name FROM models WHERE tenant = ?1 AND kind = ?2 AND artifact IS NOT NULL ORDER BY name;

-- name: deactivate_models
-- Lets none decide; the first half of every activation.
UPDATE models SET is_active = 0 WHERE tenant = ?1 AND kind = ?2 AND is_active = 1;

-- name: activate_model
-- Lets a stored model decide.
UPDATE models SET is_active = 1 WHERE tenant = ?1 AND kind = ?2 AND name = ?3 AND artifact IS NOT NULL;

-- name: activate_shipped
-- Lets the shipped model decide: a row without weights stands for it.
INSERT INTO models (tenant, kind, name, sha256, path, is_active, created_at)
VALUES (?1, ?2, ?3, printf('%064d', 0), ?3, 1, ?4)
ON CONFLICT (tenant, kind, name) DO UPDATE SET is_active = 1;

-- name: delete_model
-- Removes one stored model.
DELETE FROM models WHERE tenant = ?1 AND kind = ?2 AND name = ?3 AND artifact IS NOT NULL;

-- name: graded_features
-- Judged outcomes after a number, in order, with what their decisions kept. The conditions on outcomes are those of the
-- index outcomes_graded; CROSS JOIN keeps SQLite from reordering. Answers of removed agents are left out: who is
-- registered under their name later starts anew.
SELECT o.id, a.name, coalesce(o.quality, 0.0), d.features, d.request, o.cost_usd, o.occurred_at
FROM outcomes AS o
CROSS JOIN decisions AS d ON d.tenant = o.tenant AND d.decision_id = o.decision_id
JOIN agents AS a ON a.id = o.agent_id
WHERE o.tenant = ?1
  AND o.id > ?2
  AND o.decision_id IS NOT NULL
  AND (o.quality IS NOT NULL OR o.success = 0)
  AND d.features IS NOT NULL
  AND a.removed_at IS NULL
ORDER BY o.id
LIMIT ?3;

-- name: ability_state
-- What was learned on top of a model.
SELECT up_to, state FROM abilities WHERE tenant = ?1 AND model_sha256 = ?2;

-- name: save_ability_state
-- Keeps a state that knows more outcomes than the stored one; changes no row otherwise.
INSERT INTO abilities (tenant, model_sha256, up_to, state) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (tenant, model_sha256) DO UPDATE SET up_to = excluded.up_to, state = excluded.state
WHERE excluded.up_to > abilities.up_to;
