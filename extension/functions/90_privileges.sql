-- What pg_dump keeps, and who may call what. The record of migrations is not kept: CREATE EXTENSION writes it anew.

DO $body$
DECLARE
    kept record;
BEGIN
    FOR kept IN
        SELECT c.oid
        FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace = 'tiny_dancer'::pg_catalog.regnamespace AND c.relkind IN ('r', 'S')
          AND c.relname <> 'schema_migrations'
        ORDER BY c.relname
    LOOP
        PERFORM pg_catalog.pg_extension_config_dump(kept.oid::pg_catalog.regclass, '');
    END LOOP;
END;
$body$;

-- Any role may call the functions; what they may do is decided by the tables' privileges, because all of them run with
-- the caller's rights.
GRANT USAGE ON SCHEMA tiny_dancer TO PUBLIC;
GRANT INSERT ON tiny_dancer.meta TO tiny_dancer_admin;

COMMENT ON SCHEMA tiny_dancer IS 'The tables and inner functions of the extension tiny_dancer.';
