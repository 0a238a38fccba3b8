-- Models. What a session is told to use, every session of the tenant uses from its next statement on; who may say so is
-- decided by the privileges on the tables, as everywhere.

CREATE FUNCTION tiny_dancer._load_model(name text, artifact bytea, replace boolean) RETURNS jsonb
    LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $body$
if "tiny_dancer-@VERSION@" not in GD and (failed := plpy.execute("SELECT tiny_dancer._boot() AS it")[0]["it"]): return failed
from tinydancer import plpy_models
return plpy_models.load_model(GD["tiny_dancer-@VERSION@"], name, artifact, replace)
$body$;
COMMENT ON FUNCTION tiny_dancer._load_model(text, bytea, boolean) IS
    'Internal. Checks, stores and activates a model; what is known of it, or the error.';

CREATE FUNCTION tiny_dancer._train_router(arguments jsonb) RETURNS jsonb
    LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $body$
if "tiny_dancer-@VERSION@" not in GD and (failed := plpy.execute("SELECT tiny_dancer._boot() AS it")[0]["it"]): return failed
from tinydancer import plpy_models
return plpy_models.train_router(GD["tiny_dancer-@VERSION@"], arguments)
$body$;
COMMENT ON FUNCTION tiny_dancer._train_router(jsonb) IS
    'Internal. Trains, stores and perhaps activates a model; what came of it, or the error.';

CREATE FUNCTION tiny_dancer._change_models(operation text, arguments jsonb) RETURNS jsonb
    LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $body$
if "tiny_dancer-@VERSION@" not in GD and (failed := plpy.execute("SELECT tiny_dancer._boot() AS it")[0]["it"]): return failed
from tinydancer import plpy_models
return plpy_models.call(GD["tiny_dancer-@VERSION@"], operation, arguments)
$body$;
COMMENT ON FUNCTION tiny_dancer._change_models(text, jsonb) IS
    'Internal. As _call, for operations on models.';

CREATE FUNCTION tiny_dancer._read_models(operation text, arguments jsonb) RETURNS jsonb
    LANGUAGE plpython3u STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $body$
if "tiny_dancer-@VERSION@" not in GD and (failed := plpy.execute("SELECT tiny_dancer._boot() AS it")[0]["it"]): return failed
from tinydancer import plpy_models
return plpy_models.call(GD["tiny_dancer-@VERSION@"], operation, arguments)
$body$;
COMMENT ON FUNCTION tiny_dancer._read_models(text, jsonb) IS
    'Internal. As _read, for operations on models.';

CREATE FUNCTION @extschema@.ruvector_load_model(name text, artifact bytea, replace boolean DEFAULT false) RETURNS jsonb
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._load_model(name, artifact, replace));
COMMENT ON FUNCTION @extschema@.ruvector_load_model(text, bytea, boolean) IS
    'Checks a model''s file, stores it under a name and lets it decide, in every session from its next statement on; what '
    'is known of it. A file that is damaged (XX001), of another vector space (22000) or of a newer format is refused, and '
    'so is a name that is taken (42710), unless replace is true.';

CREATE FUNCTION @extschema@.ruvector_train_router(
    name text DEFAULT 'trained',
    start text DEFAULT NULL,
    activate boolean DEFAULT true,
    seed integer DEFAULT 0,
    replace boolean DEFAULT true,
    max_outcomes integer DEFAULT 50000
) RETURNS jsonb
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._train_router(pg_catalog.jsonb_build_object(
    'name', name, 'start', start, 'activate', activate, 'seed', seed, 'replace', replace,
    'max_outcomes', max_outcomes)));
COMMENT ON FUNCTION @extschema@.ruvector_train_router(text, text, boolean, integer, boolean, integer) IS
    'Trains a model on the latest judged outcomes of the tenant''s recorded decisions, at most max_outcomes of them, '
    'stores it under a name, in place of one of that name unless replace is false, and lets it decide unless activate is '
    'false, in every session from its next statement on. It learns from decisions that were recorded while a model was '
    'in use or tiny_dancer.record_features was on. start names a model to refine: shipped, or a stored one; NULL starts '
    'from nothing. Equal data and seed give an equal model. Returns the facts of the training, its figures on requests '
    'that were left out of it, and warnings. Too few outcomes, or all alike, are an error (55000); outcomes that are not '
    'committed yet do not count. It takes seconds for thousands of outcomes, some minutes and half a gigabyte of memory '
    'for 50,000, and may be cancelled meanwhile. Administrators only.';

CREATE FUNCTION @extschema@.ruvector_list_models() RETURNS TABLE (
    name text, kind text, is_active boolean, is_shipped boolean, size_bytes bigint, sha256 text,
    created_at timestamptz, metadata jsonb
) LANGUAGE sql STABLE PARALLEL UNSAFE ROWS 10
BEGIN ATOMIC
    SELECT m.name, m.kind, m.is_active, m.is_shipped, m.size_bytes, m.sha256,
           pg_catalog.to_timestamp(m.created_at) AS created_at, m.metadata
    FROM pg_catalog.jsonb_to_recordset(tiny_dancer._ok(tiny_dancer._read_models('list_models', '{}'))) AS m (
        name text, kind text, is_active boolean, is_shipped boolean, size_bytes bigint, sha256 text,
        created_at double precision, metadata jsonb);
END;
COMMENT ON FUNCTION @extschema@.ruvector_list_models() IS
    'The shipped model and those of the tenant. The active one decides; none does until one is loaded, trained or used. '
    'The metadata hold what each file says of itself: the agents it knows, its training, its figures.';

CREATE FUNCTION @extschema@.ruvector_use_model(name text) RETURNS boolean
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._change_models('use_model', pg_catalog.jsonb_build_object('name', name)))::boolean;
COMMENT ON FUNCTION @extschema@.ruvector_use_model(text) IS
    'Lets a stored model decide, or shipped, the one of this version, or with none no model, in every session from its '
    'next statement on. True. A name that is not stored is an error (42704).';

CREATE FUNCTION @extschema@.ruvector_remove_model(name text) RETURNS boolean
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._change_models('remove_model', pg_catalog.jsonb_build_object('name', name)))::boolean;
COMMENT ON FUNCTION @extschema@.ruvector_remove_model(text) IS
    'Removes a stored model; if it decided, none does. True.';
