-- Classifiers of requests: trained from examples, chosen, removed. ruvector_classify_request asks the one that is chosen.

CREATE FUNCTION tiny_dancer._change_classifiers(operation text, arguments jsonb) RETURNS jsonb
    LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $body$
if "tiny_dancer-@VERSION@" not in GD and (failed := plpy.execute("SELECT tiny_dancer._boot() AS it")[0]["it"]): return failed
from tinydancer import plpy_classify
return plpy_classify.call(GD["tiny_dancer-@VERSION@"], operation, arguments)
$body$;
COMMENT ON FUNCTION tiny_dancer._change_classifiers(text, jsonb) IS
    'Internal. As _call, for operations on classifiers.';

CREATE FUNCTION @extschema@.ruvector_train_classifier(
    examples text[],
    classes text[],
    name text DEFAULT 'own',
    capabilities text[] DEFAULT NULL,
    seed integer DEFAULT 0
) RETURNS jsonb LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._change_classifiers('train_classifier', pg_catalog.jsonb_build_object(
    'examples', examples, 'classes', classes, 'name', name, 'capabilities', capabilities, 'seed', seed)));
COMMENT ON FUNCTION @extschema@.ruvector_train_classifier(text[], text[], text, text[], integer) IS
    'Learns classes of requests from examples, stores the classifier under a name, in place of one of that name, and lets '
    'it answer ruvector_classify_request in every session from its next statement on. classes[i] is the class of '
    'examples[i]; capabilities[i] names what its answer takes, separated by commas, or is NULL. Returns the name, the '
    'classes and a report: accuracy, confusion and log loss on examples that were left out of the training, and '
    'warnings. Equal examples and seed give an equal classifier. One class only, a class with a single example, and a '
    'request in two classes are errors (22023). Seconds for hundreds of examples, minutes for tens of thousands; it may '
    'be cancelled meanwhile. Administrators only.';

CREATE FUNCTION @extschema@.ruvector_use_classifier(name text) RETURNS boolean
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(
    tiny_dancer._change_classifiers('use_classifier', pg_catalog.jsonb_build_object('name', name)))::boolean;
COMMENT ON FUNCTION @extschema@.ruvector_use_classifier(text) IS
    'Lets a stored classifier answer ruvector_classify_request, or shipped, the one of this version, in every session '
    'from its next statement on. True. A name that is not stored is an error (42704).';

CREATE FUNCTION @extschema@.ruvector_remove_classifier(name text) RETURNS boolean
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(
    tiny_dancer._change_classifiers('remove_classifier', pg_catalog.jsonb_build_object('name', name)))::boolean;
COMMENT ON FUNCTION @extschema@.ruvector_remove_classifier(text) IS
    'Removes a stored classifier; if it answered, the shipped one does from the next statement on. True.';
