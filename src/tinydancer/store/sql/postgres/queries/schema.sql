-- name: lock_migrations()
-- Of several processes that open an old database at once one migrates, the others wait and find it done.
SELECT pg_catalog.pg_advisory_xact_lock(1413762627, 0)::text AS locked;

-- name: is_installed()
-- Whether the extension is installed, and whether the record of migrations exists.
SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'tiny_dancer') AS extension,
       pg_catalog.to_regclass('tiny_dancer.schema_migrations') IS NOT NULL AS recorded,
       pg_catalog.to_regnamespace('tiny_dancer') IS NOT NULL AS schema;

-- name: create_schema()
-- The schema that the first migration fills. An existing one of that name is somebody else's.
CREATE SCHEMA tiny_dancer;

-- name: applied_migrations()
-- What was applied to this database.
SELECT number, sha256 FROM tiny_dancer.schema_migrations ORDER BY number;

-- name: record_migration(integer, text, text)
-- Part of the transaction that applies it.
INSERT INTO tiny_dancer.schema_migrations (number, name, sha256) VALUES ($1::integer, $2::text, $3::text);

-- name: get_space()
-- The space the database is bound to.
SELECT space_name, space_dim FROM tiny_dancer.meta WHERE id = 1;

-- name: put_space(text, integer)
-- Binds a new database to a space; an existing record stays.
INSERT INTO tiny_dancer.meta (space_name, space_dim) VALUES ($1::text, $2::integer) ON CONFLICT (id) DO NOTHING;
