-- Semantic routes and the classification of requests. A change of the routes counts in every session from its next
-- statement on; who may change them is decided by the privileges on the tables, as everywhere.

CREATE FUNCTION tiny_dancer._change_routes(operation text, arguments jsonb) RETURNS jsonb
    LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $body$
if "tiny_dancer-@VERSION@" not in GD and (failed := plpy.execute("SELECT tiny_dancer._boot() AS it")[0]["it"]): return failed
from tinydancer import plpy_routes
return plpy_routes.call(GD["tiny_dancer-@VERSION@"], operation, arguments)
$body$;
COMMENT ON FUNCTION tiny_dancer._change_routes(text, jsonb) IS
    'Internal. As _call, for operations on routes.';

CREATE FUNCTION tiny_dancer._read_routes(operation text, arguments jsonb) RETURNS jsonb
    LANGUAGE plpython3u STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $body$
if "tiny_dancer-@VERSION@" not in GD and (failed := plpy.execute("SELECT tiny_dancer._boot() AS it")[0]["it"]): return failed
from tinydancer import plpy_routes
return plpy_routes.call(GD["tiny_dancer-@VERSION@"], operation, arguments)
$body$;
COMMENT ON FUNCTION tiny_dancer._read_routes(text, jsonb) IS
    'Internal. As _read, for operations on routes.';

CREATE FUNCTION tiny_dancer._semantic_route(
    request text, embedding bytea, top_k integer, user_tier text, by_vector boolean
) RETURNS jsonb
    LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $body$
if "tiny_dancer-@VERSION@" not in GD and (failed := plpy.execute("SELECT tiny_dancer._boot() AS it")[0]["it"]): return failed
from tinydancer import plpy_routes
return plpy_routes.match(GD["tiny_dancer-@VERSION@"], request, embedding, top_k, user_tier, by_vector)
$body$;
COMMENT ON FUNCTION tiny_dancer._semantic_route(text, bytea, integer, text, boolean) IS
    'Internal. The routes of one request, or the error.';

CREATE FUNCTION tiny_dancer._classify_request(content text) RETURNS jsonb
    LANGUAGE plpython3u STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $body$
if "tiny_dancer-@VERSION@" not in GD and (failed := plpy.execute("SELECT tiny_dancer._boot() AS it")[0]["it"]): return failed
from tinydancer import plpy_routes
return plpy_routes.classify(GD["tiny_dancer-@VERSION@"], content)
$body$;
COMMENT ON FUNCTION tiny_dancer._classify_request(text) IS
    'Internal. The classes of one request, or the error.';

CREATE FUNCTION @extschema@.ruvector_create_route(
    name text,
    description text,
    target_agent text,
    priority integer DEFAULT 0,
    embedding real[] DEFAULT NULL,
    threshold double precision DEFAULT NULL,
    conditions jsonb DEFAULT NULL,
    utterances text[] DEFAULT NULL,
    negative_utterances text[] DEFAULT NULL,
    is_active boolean DEFAULT true
) RETURNS boolean LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._change_routes('create_route', pg_catalog.jsonb_build_object(
    'name', name, 'description', description, 'target_agent', target_agent, 'priority', priority,
    'embedding', embedding, 'threshold', threshold, 'conditions', conditions, 'utterances', utterances,
    'negative_utterances', negative_utterances, 'is_active', is_active)))::boolean;
COMMENT ON FUNCTION @extschema@.ruvector_create_route(
    text, text, text, integer, real[], double precision, jsonb, text[], text[], boolean) IS
    'Creates a semantic route to a registered agent; true. Requests resemble it by its description (or embedding instead) '
    'and by its utterances. threshold: similarity from which a request is its, in [-1, 1]. conditions: time_range '
    '({"start", "end", "time_zone", "days"}), user_tier (a list), rate_limit ({"requests", "per_s"}). A name that is '
    'taken is an error (42710), and so is an agent that is not registered (42704).';

-- The same with the vector in third place. Its arguments have other names, so that a call by name means the one above.
CREATE FUNCTION @extschema@.ruvector_create_route(
    route_name text, route_description text, route_embedding real[], agent_name text, route_priority integer DEFAULT 0
) RETURNS boolean LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._change_routes('create_route', pg_catalog.jsonb_build_object(
    'name', route_name, 'description', route_description, 'target_agent', agent_name, 'priority', route_priority,
    'embedding', route_embedding)))::boolean;
COMMENT ON FUNCTION @extschema@.ruvector_create_route(text, text, real[], text, integer) IS
    'As ruvector_create_route(text, text, text, ...), with the vector of the description in third place.';

CREATE FUNCTION @extschema@.ruvector_update_route(name text, changes jsonb) RETURNS boolean
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._change_routes('update_route',
    pg_catalog.jsonb_build_object('name', name, 'changes', changes)))::boolean;
COMMENT ON FUNCTION @extschema@.ruvector_update_route(text, jsonb) IS
    'Changes the fields of a route that the JSON object names: target_agent, description, embedding, priority, threshold, '
    'conditions, calibration, is_active; null takes the default. Its examples stay. True.';

CREATE FUNCTION @extschema@.ruvector_delete_route(name text) RETURNS boolean
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._change_routes('delete_route', pg_catalog.jsonb_build_object('name', name)))::boolean;
COMMENT ON FUNCTION @extschema@.ruvector_delete_route(text) IS
    'Removes a route with its utterances. True; a name that no route has is an error (42704).';

CREATE FUNCTION @extschema@.ruvector_add_utterances(name text, utterances text[], negative boolean DEFAULT false)
RETURNS integer LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._change_routes('add_utterances', pg_catalog.jsonb_build_object(
    'name', name, 'utterances', utterances, 'negative', negative)))::integer;
COMMENT ON FUNCTION @extschema@.ruvector_add_utterances(text, text[], boolean) IS
    'Adds examples to a route, or with negative texts that resemble them and are not its; how many it did not have yet.';

CREATE FUNCTION @extschema@.ruvector_remove_utterances(name text, utterances text[]) RETURNS integer
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._change_routes('remove_utterances', pg_catalog.jsonb_build_object(
    'name', name, 'utterances', utterances)))::integer;
COMMENT ON FUNCTION @extschema@.ruvector_remove_utterances(text, text[]) IS
    'Removes examples and negative examples of a route by their texts; how many there were.';

CREATE FUNCTION @extschema@.ruvector_list_routes() RETURNS TABLE (
    name text, description text, target_agent text, priority integer, threshold double precision, conditions jsonb,
    is_active boolean, utterances text[], negative_utterances text[], calibration jsonb
) LANGUAGE sql STABLE PARALLEL UNSAFE ROWS 20
BEGIN ATOMIC
    SELECT r.name, r.description, r.target_agent, r.priority, r.threshold, r.conditions, r.is_active, r.utterances,
           r.negative_utterances, r.calibration
    FROM pg_catalog.jsonb_to_recordset(tiny_dancer._ok(tiny_dancer._read_routes('list_routes', '{}'))) AS r (
        name text, description text, target_agent text, priority integer, threshold double precision, conditions jsonb,
        is_active boolean, utterances text[], negative_utterances text[], calibration jsonb);
END;
COMMENT ON FUNCTION @extschema@.ruvector_list_routes() IS
    'Every semantic route of the tenant in order of name. threshold is NULL where the default holds, calibration until '
    'ruvector_fit_routes made one.';

CREATE FUNCTION @extschema@.ruvector_semantic_route(query text, top_k integer DEFAULT 3, user_tier text DEFAULT NULL)
RETURNS TABLE (route_name text, similarity real, target_agent text, confidence real)
    LANGUAGE sql VOLATILE PARALLEL UNSAFE ROWS 3
BEGIN ATOMIC
    SELECT r.route_name, r.similarity, r.target_agent, r.confidence
    FROM pg_catalog.jsonb_to_recordset(
        tiny_dancer._ok(tiny_dancer._semantic_route(query, NULL, top_k, user_tier, false))) AS r (
        route_name text, similarity real, target_agent text, confidence real);
END;
COMMENT ON FUNCTION @extschema@.ruvector_semantic_route(text, integer, text) IS
    'The routes that a request passes, the one to take first, at most top_k, each with the probability that the request '
    'is its. Where it is none of these: one row whose route_name and target_agent are NULL, with the probability of that '
    'and the similarity of the nearest route. The first counts against its route''s rate limit.';

CREATE FUNCTION @extschema@.ruvector_semantic_route(
    query_embedding real[], top_k integer DEFAULT 3, user_tier text DEFAULT NULL
) RETURNS TABLE (route_name text, similarity real, target_agent text, confidence real)
    LANGUAGE sql VOLATILE PARALLEL UNSAFE ROWS 3
BEGIN ATOMIC
    SELECT r.route_name, r.similarity, r.target_agent, r.confidence
    FROM pg_catalog.jsonb_to_recordset(tiny_dancer._ok(tiny_dancer._semantic_route(
        NULL, tiny_dancer._bytes(query_embedding), top_k, user_tier, true))) AS r (
        route_name text, similarity real, target_agent text, confidence real);
END;
COMMENT ON FUNCTION @extschema@.ruvector_semantic_route(real[], integer, text) IS
    'As ruvector_semantic_route(text, integer, text), for a request given by its vector.';

CREATE FUNCTION @extschema@.ruvector_fit_routes(
    route_names text[],
    requests text[],
    min_confidence double precision DEFAULT NULL,
    test_share double precision DEFAULT 0.5,
    seed integer DEFAULT 0,
    keep boolean DEFAULT true
) RETURNS jsonb LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._change_routes('fit_routes', pg_catalog.jsonb_build_object(
    'route_names', route_names, 'requests', requests, 'min_confidence', min_confidence, 'test_share', test_share,
    'seed', seed, 'keep', keep)));
COMMENT ON FUNCTION @extschema@.ruvector_fit_routes(
    text[], text[], double precision, double precision, integer, boolean) IS
    'Chooses the thresholds of all active routes and calibrates their confidence from labelled requests, given as '
    'array_agg(route) and array_agg(content), a NULL route for none of these; what both do on held-out requests: '
    'accuracy, precision, recall and misses per route, calibration error. Without keep nothing is stored.';

CREATE FUNCTION @extschema@.ruvector_classify_request(content text) RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._classify_request(content));
COMMENT ON FUNCTION @extschema@.ruvector_classify_request(text) IS
    'What kind of request a text is: classifications (all classes as [name, probability], the likeliest first), '
    'top_category and confidence (the first of them), capabilities (what its answer takes, likewise, above one half), and '
    'the model that says so.';
