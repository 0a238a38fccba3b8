-- name: create_schema_migrations
-- The record of migrations; the only table that no migration makes.
CREATE TABLE IF NOT EXISTS schema_migrations (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    applied_at REAL NOT NULL
) STRICT;

-- name: applied_migrations
-- What was applied to this file.
SELECT number, sha256 FROM schema_migrations ORDER BY number;

-- name: record_migration
-- Part of the transaction that applies it.
INSERT INTO schema_migrations (number, name, sha256, applied_at) VALUES (?1, ?2, ?3, ?4);

-- name: has_tables
-- Whether there is anything in the file at all, and whether it records migrations.
SELECT count(*), coalesce(sum(name = 'schema_migrations'), 0) FROM sqlite_schema WHERE type = 'table';

-- name: put_space
-- Records the space of a new store; an existing record stays.
INSERT INTO meta (id, space_name, space_dim, created_at) VALUES (1, ?1, ?2, ?3) ON CONFLICT (id) DO NOTHING;

-- name: get_space
-- The space the store was made for.
SELECT space_name, space_dim FROM meta WHERE id = 1;
