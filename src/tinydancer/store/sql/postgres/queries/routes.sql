-- Every change of the routes begins with change_registry, under whose lock the statements after it see what was
-- committed before.

-- name: route_names(text)
-- Names of the tenant's routes.
SELECT name FROM tiny_dancer.routes WHERE tenant = $1::text;

-- name: put_routes(text, jsonb, float8)
-- Keeps routes, given as an array of objects; those that exist are overwritten and keep their id.
INSERT INTO tiny_dancer.routes (tenant, name, description, target_agent, priority, threshold, conditions, calibration,
                                is_active, created_at, updated_at)
SELECT $1::text, r.name, r.description, r.target_agent, r.priority, r.threshold, r.conditions, r.calibration,
       r.is_active, pg_catalog.to_timestamp($3::float8), pg_catalog.to_timestamp($3::float8)
FROM pg_catalog.jsonb_to_recordset($2::jsonb) AS r (
    name text, description text, target_agent text, priority integer, threshold float8, conditions jsonb,
    calibration jsonb, is_active boolean)
ON CONFLICT (tenant, name) DO UPDATE
SET description = excluded.description, target_agent = excluded.target_agent, priority = excluded.priority,
    threshold = excluded.threshold, conditions = excluded.conditions, calibration = excluded.calibration,
    is_active = excluded.is_active, updated_at = excluded.updated_at;

-- name: delete_route(text, text)
-- Removes a route, and with it its utterances and the state of its rate limit; no row if there is none.
DELETE FROM tiny_dancer.routes WHERE tenant = $1::text AND name = $2::text RETURNING name;

-- name: list_routes(text)
-- Every route with every utterance, in order of name and of arrival; vectors in the binary form of an array.
SELECT r.name, r.description, r.target_agent, r.priority, r.threshold, r.conditions::text AS conditions,
       r.calibration::text AS calibration, r.is_active, u.kind, u.utterance,
       pg_catalog.array_send(u.embedding) AS embedding
FROM tiny_dancer.routes AS r
LEFT JOIN tiny_dancer.route_utterances AS u ON u.tenant = r.tenant AND u.route_id = r.id
WHERE r.tenant = $1::text
ORDER BY r.name, u.id;

-- name: get_route(text, text)
-- As list_routes, of one route.
SELECT r.name, r.description, r.target_agent, r.priority, r.threshold, r.conditions::text AS conditions,
       r.calibration::text AS calibration, r.is_active, u.kind, u.utterance,
       pg_catalog.array_send(u.embedding) AS embedding
FROM tiny_dancer.routes AS r
LEFT JOIN tiny_dancer.route_utterances AS u ON u.tenant = r.tenant AND u.route_id = r.id
WHERE r.tenant = $1::text AND r.name = $2::text
ORDER BY u.id;

-- name: insert_utterances(text, jsonb, float8)
-- Adds utterances, given as an array of objects with the names of their routes, in that order.
INSERT INTO tiny_dancer.route_utterances (tenant, route_id, kind, utterance, embedding, created_at)
SELECT r.tenant, r.id, u.kind, u.text, u.embedding, pg_catalog.to_timestamp($3::float8)
FROM ROWS FROM (pg_catalog.jsonb_to_recordset($2::jsonb) AS (route text, kind text, text text, embedding real[]))
     WITH ORDINALITY AS u (route, kind, text, embedding, number)
JOIN tiny_dancer.routes AS r ON r.tenant = $1::text AND r.name = u.route
ORDER BY u.number;

-- name: utterance_texts(text, text)
-- What a route has by now, without the vectors.
SELECT u.kind, u.utterance
FROM tiny_dancer.routes AS r
JOIN tiny_dancer.route_utterances AS u ON u.tenant = r.tenant AND u.route_id = r.id
WHERE r.tenant = $1::text AND r.name = $2::text;

-- name: delete_examples(text, text, text[])
-- Removes examples of a route by their texts, wanted or negative ones; how many.
WITH removed AS (
    DELETE FROM tiny_dancer.route_utterances AS u
    USING tiny_dancer.routes AS r
    WHERE r.tenant = $1::text AND r.name = $2::text AND u.tenant = r.tenant AND u.route_id = r.id
      AND u.utterance = ANY ($3::text[]) AND u.kind <> 'description'
    RETURNING u.id
)
SELECT count(*) AS utterances FROM removed;

-- name: delete_utterances(text, text[], boolean)
-- Removes the descriptions of routes, or with true all their utterances.
DELETE FROM tiny_dancer.route_utterances AS u
USING tiny_dancer.routes AS r
WHERE r.tenant = $1::text AND r.name = ANY ($2::text[]) AND u.tenant = r.tenant AND u.route_id = r.id
  AND (u.kind = 'description' OR $3::boolean);

-- name: route_limit(text, text)
-- The state of a route's rate limit; no row before the first request.
SELECT l.full_at
FROM tiny_dancer.routes AS r
JOIN tiny_dancer.route_limits AS l ON l.tenant = r.tenant AND l.route_id = r.id
WHERE r.tenant = $1::text AND r.name = $2::text;

-- name: begin_route_limit(text, text)
-- A first state for a route that was never taken; another session's stays.
INSERT INTO tiny_dancer.route_limits (tenant, route_id, full_at)
SELECT tenant, id, 0.0 FROM tiny_dancer.routes WHERE tenant = $1::text AND name = $2::text
ON CONFLICT (tenant, route_id) DO NOTHING;

-- name: lock_route_limit(text, text)
-- The state of a route's rate limit, locked until the end of the transaction.
SELECT l.full_at
FROM tiny_dancer.routes AS r
JOIN tiny_dancer.route_limits AS l ON l.tenant = r.tenant AND l.route_id = r.id
WHERE r.tenant = $1::text AND r.name = $2::text
FOR UPDATE OF l;

-- name: put_route_limit(text, text, float8)
-- Keeps the next state of a route's rate limit.
UPDATE tiny_dancer.route_limits AS l
SET full_at = $3::float8
FROM tiny_dancer.routes AS r
WHERE r.tenant = $1::text AND r.name = $2::text AND l.tenant = r.tenant AND l.route_id = r.id;
