-- How the functions reach the modules. Answers and errors are JSON: an exception that left PL/Python would show the
-- client a traceback, so errors come back as values, and tiny_dancer._ok raises them.

CREATE FUNCTION tiny_dancer._boot() RETURNS jsonb
    LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $body$
import json, os, sys
folder, version = "MODULE_PATHNAME", "@VERSION@"
# A backend has one thread: signals that PostgreSQL waits for must not go to another, and its memory counts per session.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
if folder not in sys.path:
    sys.path.insert(0, folder)
try:
    from tinydancer import plpy_entry
    plpy_entry.boot_check(version)
    GD["tiny_dancer-@VERSION@"] = plpy_entry.Session(plpy)
    return None
except Exception as error:
    message = getattr(error, "message", None) or f"The modules of Tiny Dancer {version} cannot be loaded: {error}."
    hint = getattr(error, "hint", None) or "On the server, as root: tinydancer postgres install"
    return json.dumps({"!": {"sqlstate": getattr(error, "sqlstate", "58P01"), "message": message, "hint": hint}})
$body$;
COMMENT ON FUNCTION tiny_dancer._boot() IS
    'Internal. Loads the modules into this session, once; NULL, or the error.';

CREATE FUNCTION tiny_dancer._call(operation text, arguments jsonb) RETURNS jsonb
    LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $body$
if "tiny_dancer-@VERSION@" not in GD and (failed := plpy.execute("SELECT tiny_dancer._boot() AS it")[0]["it"]): return failed
return GD["tiny_dancer-@VERSION@"].call(operation, arguments)
$body$;
COMMENT ON FUNCTION tiny_dancer._call(text, jsonb) IS
    'Internal. An operation that may change something; its answer, or the error.';

CREATE FUNCTION tiny_dancer._read(operation text, arguments jsonb) RETURNS jsonb
    LANGUAGE plpython3u STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $body$
if "tiny_dancer-@VERSION@" not in GD and (failed := plpy.execute("SELECT tiny_dancer._boot() AS it")[0]["it"]): return failed
return GD["tiny_dancer-@VERSION@"].call(operation, arguments)
$body$;
COMMENT ON FUNCTION tiny_dancer._read(text, jsonb) IS
    'Internal. As _call, for operations that only read; the server refuses them a change.';

-- PL/Python would make a list of an array, number by number, and NumPy an array of the list, which takes longer than the
-- decision. A substring of the array's bytes from the first is all of them, which NumPy reads as they lie.
CREATE FUNCTION tiny_dancer._bytes(vectors real[], first integer DEFAULT 1) RETURNS bytea
    LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE
AS 'bytea_substr_no_len';
COMMENT ON FUNCTION tiny_dancer._bytes(real[], integer) IS
    'Internal. An array as it lies in the server''s memory.';

CREATE FUNCTION tiny_dancer._route_vector(
    embedding bytea, optimize_for text, constraints jsonb, context jsonb DEFAULT NULL
) RETURNS jsonb
    LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $body$
if "tiny_dancer-@VERSION@" not in GD and (failed := plpy.execute("SELECT tiny_dancer._boot() AS it")[0]["it"]): return failed
return GD["tiny_dancer-@VERSION@"].route_vector(embedding, optimize_for, constraints, context)
$body$;
COMMENT ON FUNCTION tiny_dancer._route_vector(bytea, text, jsonb, jsonb) IS
    'Internal. The decision for one vector, or the error.';

CREATE FUNCTION tiny_dancer._route_text(request text, optimize_for text, limits jsonb) RETURNS jsonb
    LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $body$
if "tiny_dancer-@VERSION@" not in GD and (failed := plpy.execute("SELECT tiny_dancer._boot() AS it")[0]["it"]): return failed
return GD["tiny_dancer-@VERSION@"].route_text(request, optimize_for, limits)
$body$;
COMMENT ON FUNCTION tiny_dancer._route_text(text, text, jsonb) IS
    'Internal. The decision for one text, or the error.';

-- Many decisions as columns: as rows of one JSON value they take longer to write and to read than to make.
CREATE FUNCTION tiny_dancer._route_many(
    requests text[],
    embeddings bytea,
    ids integer,
    optimize_for text,
    limits jsonb,
    explain boolean,
    OUT error jsonb, OUT agent_name text[], OUT confidence double precision[], OUT estimated_cost double precision[],
    OUT estimated_latency text[], OUT estimated_latency_ms double precision[], OUT expected_quality double precision[],
    OUT similarity_score double precision[], OUT uncertainty double precision[], OUT reasoning text[],
    OUT alternatives jsonb[], OUT model text[], OUT objective text[], OUT decision_id text[]
) LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $body$
if "tiny_dancer-@VERSION@" not in GD and (failed := plpy.execute("SELECT tiny_dancer._boot() AS it")[0]["it"]): return (failed, *[None] * 13)
if optimize_for and optimize_for.strip().casefold() == "total_cost":
    from tinydancer import plpy_plan
    return plpy_plan.assign_many(GD["tiny_dancer-@VERSION@"], requests, embeddings, ids, limits, explain)
return GD["tiny_dancer-@VERSION@"].route_many(requests, embeddings, ids, optimize_for, limits, explain)
$body$;
COMMENT ON FUNCTION tiny_dancer._route_many(text[], bytea, integer, text, jsonb, boolean) IS
    'Internal. The decisions for many texts, or for the rows of a two-dimensional array; or the error.';

CREATE FUNCTION tiny_dancer._embed(content text) RETURNS text
    LANGUAGE plpython3u IMMUTABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $body$
if "tiny_dancer-@VERSION@" not in GD and (failed := plpy.execute("SELECT tiny_dancer._boot() AS it")[0]["it"]): return failed
return GD["tiny_dancer-@VERSION@"].embed(content)
$body$;
COMMENT ON FUNCTION tiny_dancer._embed(text) IS
    'Internal. A vector as the text of an array, or the error.';

CREATE FUNCTION tiny_dancer._ok(answer jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    error jsonb;
BEGIN
    IF NOT answer ? '!' THEN
        RETURN answer;
    END IF;
    error := answer -> '!';
    -- An option of RAISE may not be NULL, and an empty one would show as an empty line.
    IF error ->> 'detail' IS NULL AND error ->> 'hint' IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = error ->> 'sqlstate', MESSAGE = error ->> 'message';
    ELSIF error ->> 'detail' IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = error ->> 'sqlstate', MESSAGE = error ->> 'message', HINT = error ->> 'hint';
    ELSIF error ->> 'hint' IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = error ->> 'sqlstate', MESSAGE = error ->> 'message',
            DETAIL = error ->> 'detail';
    END IF;
    RAISE EXCEPTION USING ERRCODE = error ->> 'sqlstate', MESSAGE = error ->> 'message',
        DETAIL = error ->> 'detail', HINT = error ->> 'hint';
END;
$body$;
COMMENT ON FUNCTION tiny_dancer._ok(jsonb) IS
    'Internal. The answer itself; an error is raised with its SQLSTATE, DETAIL and HINT.';

CREATE FUNCTION tiny_dancer._ok(answer text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $body$
BEGIN
    IF starts_with(answer, '{"') THEN
        PERFORM tiny_dancer._ok(answer::jsonb);
    END IF;
    RETURN answer;
END;
$body$;
COMMENT ON FUNCTION tiny_dancer._ok(text) IS
    'Internal. As _ok(jsonb), for the text of an array, which never begins with a quoted key.';

CREATE FUNCTION tiny_dancer.set_vector_space(name text, dim integer) RETURNS boolean
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._call('set_vector_space',
    pg_catalog.jsonb_build_object('name', name, 'dim', dim)))::boolean;
COMMENT ON FUNCTION tiny_dancer.set_vector_space(text, integer) IS
    'Binds the database to a vector space before its first agent: a name of your own and the number of dimensions. '
    'Without it the space is that of all-MiniLM-L6-v2, 384 dimensions, in which texts are embedded; in any other space '
    'callers bring their own vectors. Only the owner of the extension''s tables may call it.';
