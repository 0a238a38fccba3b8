-- name: insert_model(text, text, text, text, bytea, text, float8)
-- Stores a model that does not decide yet; the table refuses a name that is taken. Locks as insert_agents does: changes
-- of one tenant's registry follow one another.
WITH waited AS MATERIALIZED (
    SELECT pg_catalog.pg_advisory_xact_lock(1413762628, pg_catalog.hashtext($1::text))
), changed AS (
    INSERT INTO tiny_dancer.registry_versions (tenant, version)
    SELECT $1::text, pg_catalog.nextval('tiny_dancer.registry_version_seq') FROM waited
    ON CONFLICT (tenant) DO UPDATE SET version = pg_catalog.nextval('tiny_dancer.registry_version_seq')
    RETURNING tenant
)
INSERT INTO tiny_dancer.models (tenant, kind, name, sha256, artifact, metadata, created_at)
SELECT tenant, $2::text, $3::text, $4::text, $5::bytea, $6::text::jsonb, pg_catalog.to_timestamp($7::float8)
FROM changed;

-- name: put_model(text, text, text, text, bytea, text, float8)
-- As insert_model, over one of that name, which goes on deciding if it did.
WITH waited AS MATERIALIZED (
    SELECT pg_catalog.pg_advisory_xact_lock(1413762628, pg_catalog.hashtext($1::text))
), changed AS (
    INSERT INTO tiny_dancer.registry_versions (tenant, version)
    SELECT $1::text, pg_catalog.nextval('tiny_dancer.registry_version_seq') FROM waited
    ON CONFLICT (tenant) DO UPDATE SET version = pg_catalog.nextval('tiny_dancer.registry_version_seq')
    RETURNING tenant
)
INSERT INTO tiny_dancer.models (tenant, kind, name, sha256, artifact, metadata, created_at)
SELECT tenant, $2::text, $3::text, $4::text, $5::bytea, $6::text::jsonb, pg_catalog.to_timestamp($7::float8)
FROM changed
ON CONFLICT (tenant, kind, name) DO UPDATE
SET sha256 = excluded.sha256, artifact = excluded.artifact, metadata = excluded.metadata,
    created_at = excluded.created_at;

-- name: list_models(text, text)
-- The stored models of one kind, or with NULL of all. The row without an artifact stands for the shipped one.
SELECT kind, name, sha256, pg_catalog.octet_length(artifact) AS size_bytes, metadata::text AS metadata, is_active,
       extract(epoch FROM created_at)::float8 AS created_at
FROM tiny_dancer.models
WHERE tenant = $1::text AND ($2::text IS NULL OR kind = $2::text) AND artifact IS NOT NULL
ORDER BY kind COLLATE "C", name;

-- name: get_model(text, text, text)
-- One stored model without its weights.
SELECT kind, name, sha256, pg_catalog.octet_length(artifact) AS size_bytes, metadata::text AS metadata, is_active,
       extract(epoch FROM created_at)::float8 AS created_at
FROM tiny_dancer.models
WHERE tenant = $1::text AND kind = $2::text AND name = $3::text AND artifact IS NOT NULL;

-- name: active_model(text, text)
-- The row that was made active, which has no size where it stands for the shipped one; no row where none decides.
SELECT kind, name, sha256, pg_catalog.octet_length(artifact) AS size_bytes, metadata::text AS metadata, is_active,
       extract(epoch FROM created_at)::float8 AS created_at
FROM tiny_dancer.models
WHERE tenant = $1::text AND kind = $2::text AND is_active;

-- name: model_artifact(text, text, text)
-- The weights of one stored model.
SELECT artifact
FROM tiny_dancer.models
WHERE tenant = $1::text AND kind = $2::text AND name = $3::text AND artifact IS NOT NULL;

-- name: model_names(text, text)
-- Names of the stored models of one kind.
SELECT name FROM tiny_dancer.models WHERE tenant = $1::text AND kind = $2::text AND artifact IS NOT NULL ORDER BY name;

-- name: change_registry(text)
-- Begins a change of several statements: takes the lock that every change of the registry takes, so that the statements
-- after it see what was committed before, and draws the new version under it.
WITH waited AS MATERIALIZED (
    SELECT pg_catalog.pg_advisory_xact_lock(1413762628, pg_catalog.hashtext($1::text))
)
INSERT INTO tiny_dancer.registry_versions (tenant, version)
SELECT $1::text, pg_catalog.nextval('tiny_dancer.registry_version_seq') FROM waited
ON CONFLICT (tenant) DO UPDATE SET version = pg_catalog.nextval('tiny_dancer.registry_version_seq');

-- name: deactivate_models(text, text)
-- Lets none decide; the first half of every activation.
UPDATE tiny_dancer.models SET is_active = false WHERE tenant = $1::text AND kind = $2::text AND is_active;

-- name: activate_model(text, text, text)
-- Lets a stored model decide; no row if there is none of that name.
UPDATE tiny_dancer.models
SET is_active = true
WHERE tenant = $1::text AND kind = $2::text AND name = $3::text AND artifact IS NOT NULL
RETURNING name;

-- name: activate_shipped(text, text, text, float8)
-- Lets the shipped model decide: a row without weights stands for it.
INSERT INTO tiny_dancer.models (tenant, kind, name, sha256, path, is_active, created_at)
VALUES ($1::text, $2::text, $3::text, pg_catalog.repeat('0', 64), $3::text, true, pg_catalog.to_timestamp($4::float8))
ON CONFLICT (tenant, kind, name) DO UPDATE SET is_active = true;

-- name: delete_model(text, text, text)
-- Removes one stored model; how many, and if none, nothing changes.
WITH waited AS MATERIALIZED (
    SELECT pg_catalog.pg_advisory_xact_lock(1413762628, pg_catalog.hashtext($1::text))
), locked AS MATERIALIZED (
    SELECT v.tenant FROM waited, tiny_dancer.registry_versions AS v WHERE v.tenant = $1::text FOR UPDATE OF v
), removed AS (
    DELETE FROM tiny_dancer.models AS old
    USING locked
    WHERE old.tenant = locked.tenant AND old.kind = $2::text AND old.name = $3::text AND old.artifact IS NOT NULL
    RETURNING old.tenant
), changed AS (
    UPDATE tiny_dancer.registry_versions AS v
    SET version = pg_catalog.nextval('tiny_dancer.registry_version_seq')
    FROM removed
    WHERE v.tenant = removed.tenant
)
SELECT count(*) AS models FROM removed;
