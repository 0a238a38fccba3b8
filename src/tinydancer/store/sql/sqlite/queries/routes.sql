-- name: route_names
-- Ids and names of the tenant's routes.
SELECT id, name FROM routes WHERE tenant = ?1;

-- name: insert_route
-- Keeps a new route; the table refuses a name that is taken.
INSERT INTO routes (tenant, name, description, target_agent, priority, threshold, conditions, calibration, is_active,
                    created_at, updated_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10);

-- name: update_route
-- Overwrites the fields of a route; its utterances and its id stay. The parameters are those of insert_route.
UPDATE routes
SET description = ?3, target_agent = ?4, priority = ?5, threshold = ?6, conditions = ?7, calibration = ?8,
    is_active = ?9, updated_at = ?10
WHERE tenant = ?1 AND name = ?2;

-- name: delete_route
-- Removes a route, and with it its utterances and the state of its rate limit.
DELETE FROM routes WHERE tenant = ?1 AND name = ?2;

-- name: list_routes
-- Every route with every utterance, in order of name and of arrival.
SELECT r.name, r.description, r.target_agent, r.priority, r.threshold, r.conditions, r.calibration, r.is_active,
       u.kind, u.utterance, u.embedding
FROM routes AS r
LEFT JOIN route_utterances AS u ON u.tenant = r.tenant AND u.route_id = r.id
WHERE r.tenant = ?1
ORDER BY r.name, u.id;

-- name: get_route
-- As list_routes, of one route.
SELECT r.name, r.description, r.target_agent, r.priority, r.threshold, r.conditions, r.calibration, r.is_active,
       u.kind, u.utterance, u.embedding
FROM routes AS r
LEFT JOIN route_utterances AS u ON u.tenant = r.tenant AND u.route_id = r.id
WHERE r.tenant = ?1 AND r.name = ?2
ORDER BY u.id;

-- name: insert_utterance
-- Adds one utterance to a route.
INSERT INTO route_utterances (tenant, route_id, kind, utterance, embedding, created_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6);

-- name: utterance_texts
-- What a route has by now, without the vectors.
SELECT kind, utterance FROM route_utterances WHERE tenant = ?1 AND route_id = ?2;

-- name: delete_utterance
-- Removes an example by its text, wanted or negative.
DELETE FROM route_utterances WHERE tenant = ?1 AND route_id = ?2 AND utterance = ?3 AND kind <> 'description';

-- name: delete_utterances
-- Removes the description of a route, or with 1 all its utterances.
DELETE FROM route_utterances WHERE tenant = ?1 AND route_id = ?2 AND (kind = 'description' OR ?3 = 1);

-- name: route_limit
-- The state of a route's rate limit; no row before the first request.
SELECT l.full_at
FROM routes AS r JOIN route_limits AS l ON l.tenant = r.tenant AND l.route_id = r.id
WHERE r.tenant = ?1 AND r.name = ?2;

-- name: put_route_limit
-- Keeps the next state of a route's rate limit; no row for a route that was removed meanwhile.
INSERT INTO route_limits (tenant, route_id, full_at)
SELECT tenant, id, ?3 FROM routes WHERE tenant = ?1 AND name = ?2
ON CONFLICT (tenant, route_id) DO UPDATE SET full_at = excluded.full_at;
