"""Brings a PostgreSQL database to the current schema from outside, and tells the extension how to do the same.

In: a `PsycopgConnection` and the numbered files of ``sql/postgres/migrations``. Out: the tables in the schema
``tiny_dancer``. All that is missing is applied in one transaction under an advisory lock. Where the extension is
installed its own scripts do this, and the store only checks that the versions fit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tinydancer.errors import StoreError, StoreVersionError
from tinydancer.store.migrations import Migration, load_migrations
from tinydancer.store.pg_connection import PsycopgConnection, Run
from tinydancer.store.pg_failures import PRIVILEGE_MISSING, DatabaseFailure
from tinydancer.store.pg_queries import MIGRATIONS_FOLDER, QUERIES


def migrate(connection: PsycopgConnection, migrations: Sequence[Migration] | None = None) -> int:
    """Applies what is missing; how many migrations that were.

    Raises
    ------
    StoreVersionError
        If the database was migrated by a newer version, or by other files than ours, or by an extension that is older.
    StoreError
        If the role may not create the schema, or a schema of that name belongs to something else.
    """
    wanted = tuple(load_migrations(MIGRATIONS_FOLDER) if migrations is None else migrations)
    if connection.alone(lambda raw, run: _missing(run, wanted)) == 0:
        return 0
    try:
        return connection.alone(lambda raw, run: _apply(raw, run, wanted))
    except DatabaseFailure as failure:
        if failure.sqlstate != PRIVILEGE_MISSING:
            raise
        raise StoreError(
            f"The role may not install the tables of Tiny Dancer: {failure.message}.",
            hint="Open the store once as a role that may create schemas in this database.",
        ) from None


def installation_sql(after: int = 0) -> str:
    """The migrations after number `after` with their records, for an extension script; the schema exists already."""
    parts = []
    for step in load_migrations(MIGRATIONS_FOLDER)[after:]:
        values = f"({step.number}, '{step.name}', '{step.sha256}')"
        parts.append(step.sql)
        parts.append(f"INSERT INTO tiny_dancer.schema_migrations (number, name, sha256) VALUES {values};\n")
    return "\n".join(parts)


def adopting_sql() -> str:
    """As `installation_sql`, schema included, for a database where the store may have made the tables before.

    They become the extension's own if the role that creates the extension, or a superuser, owns all of them: else a
    role that may merely create schemas could leave functions and triggers there that others' calls would run.
    """
    parts = [_ADOPT]
    for step in load_migrations(MIGRATIONS_FOLDER):
        if quoted := re.search(r"\$(migration|step)\$", step.sql):
            raise StoreError(f"The migration {step.name} quotes with {quoted.group()}, which stands around it here.")
        parts.append(_STEP.format(number=step.number, name=step.name, sha256=step.sha256, sql=step.sql))
    return "\n".join(parts)


_ADOPT = """
DO $body$
DECLARE
    strangers text;
    found record;
BEGIN
    IF pg_catalog.to_regnamespace('tiny_dancer') IS NULL THEN
        CREATE SCHEMA tiny_dancer;
        RETURN;
    ELSIF pg_catalog.to_regclass('tiny_dancer.schema_migrations') IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = '42P06',
            MESSAGE = 'The schema tiny_dancer exists and is not ours: it has no table schema_migrations.',
            HINT = 'Use another database, or drop the schema if nobody needs it.';
    END IF;
    SELECT pg_catalog.string_agg(DISTINCT r.rolname::text, ', ') INTO strangers
    FROM (SELECT nspowner FROM pg_catalog.pg_namespace WHERE oid = 'tiny_dancer'::pg_catalog.regnamespace
          UNION SELECT relowner FROM pg_catalog.pg_class WHERE relnamespace = 'tiny_dancer'::pg_catalog.regnamespace
          UNION SELECT proowner FROM pg_catalog.pg_proc WHERE pronamespace = 'tiny_dancer'::pg_catalog.regnamespace
          UNION SELECT typowner FROM pg_catalog.pg_type WHERE typnamespace = 'tiny_dancer'::pg_catalog.regnamespace
         ) AS o (owner)
    JOIN pg_catalog.pg_roles AS r ON r.oid = o.owner
    WHERE NOT r.rolsuper AND r.rolname <> current_user;
    IF strangers IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = '42501',
            MESSAGE = pg_catalog.format('The tables in the schema tiny_dancer belong to %s.', strangers),
            DETAIL = 'What they own there would run with the rights of whoever calls the extension.',
            HINT = pg_catalog.format('If you trust them: REASSIGN OWNED BY %s TO %I; and grant tiny_dancer_admin to '
                                     'the role that the store connects as.', strangers, current_user);
    END IF;
    ALTER EXTENSION tiny_dancer ADD SCHEMA tiny_dancer;
    FOR found IN
        SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END AS kind,
               c.oid::pg_catalog.regclass::text AS name
        FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace = 'tiny_dancer'::pg_catalog.regnamespace AND c.relkind IN ('r', 'v', 'S')
        UNION ALL
        SELECT 'FUNCTION', p.oid::pg_catalog.regprocedure::text
        FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = 'tiny_dancer'::pg_catalog.regnamespace
        UNION ALL
        SELECT 'DOMAIN', t.oid::pg_catalog.regtype::text
        FROM pg_catalog.pg_type AS t
        WHERE t.typnamespace = 'tiny_dancer'::pg_catalog.regnamespace AND t.typtype = 'd'
    LOOP
        EXECUTE pg_catalog.format('ALTER EXTENSION tiny_dancer ADD %s %s', found.kind, found.name);
    END LOOP;
END;
$body$;
"""
_STEP = """
DO $step$
DECLARE
    applied text;
BEGIN
    IF pg_catalog.to_regclass('tiny_dancer.schema_migrations') IS NOT NULL THEN
        SELECT m.sha256 INTO applied FROM tiny_dancer.schema_migrations AS m WHERE m.number = {number};
        IF applied = '{sha256}' THEN
            RETURN;
        ELSIF applied IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = '55000',
                MESSAGE = 'The tables were made by another version of migration {number} ({name}).';
        END IF;
    END IF;
    EXECUTE $migration$
{sql}
    $migration$;
    INSERT INTO tiny_dancer.schema_migrations (number, name, sha256) VALUES ({number}, '{name}', '{sha256}');
END;
$step$;
"""


def _missing(run: Run, wanted: Sequence[Migration]) -> int:
    extension, recorded, schema = run(QUERIES["is_installed"], ())[0]
    if not recorded:
        if schema:
            raise StoreError(
                "The schema tiny_dancer exists and is not ours: it has no table schema_migrations.",
                hint="Name another database, or drop the schema if nobody needs it.",
            )
        return len(wanted)
    applied: dict[int, str] = dict(run(QUERIES["applied_migrations"], ()))
    if len(applied) > len(wanted):
        raise StoreVersionError(
            f"The database has schema {max(applied)}; this Tiny Dancer knows up to {len(wanted)}.",
            hint="It was migrated by a newer version: upgrade this one.",
        )
    for step in wanted[: len(applied)]:
        if applied.get(step.number) != step.sha256:
            raise StoreVersionError(
                f"The database was made by another version of migration {step.number:04}_{step.name}.",
                hint="It comes from an unreleased build: open it with that one, or use a new database.",
            )
    if extension and len(applied) < len(wanted):
        raise StoreVersionError(
            f"The extension tiny_dancer has schema {len(applied)}; this Tiny Dancer needs {len(wanted)}.",
            hint="Run: ALTER EXTENSION tiny_dancer UPDATE",
        )
    return len(wanted) - len(applied)


def _apply(raw: Any, run: Run, wanted: Sequence[Migration]) -> int:
    run(QUERIES["lock_migrations"], ())
    missing = _missing(run, wanted)  # another process may have been first
    if missing == len(wanted) and not run(QUERIES["is_installed"], ())[0][2]:
        run(QUERIES["create_schema"], ())
    for step in wanted[len(wanted) - missing :]:
        raw.execute(step.sql)
        run(QUERIES["record_migration"], (step.number, step.name, step.sha256))
    return missing
