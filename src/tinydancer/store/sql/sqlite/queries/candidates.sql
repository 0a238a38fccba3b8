-- name: put_candidate
-- Stores a candidate; one of the same id is replaced.
INSERT INTO candidates (tenant, candidate_id, embedding, metadata, created_at, access_count, success_rate)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
ON CONFLICT (tenant, candidate_id) DO UPDATE
SET embedding = excluded.embedding, metadata = excluded.metadata, created_at = excluded.created_at,
    access_count = excluded.access_count, success_rate = excluded.success_rate;

-- name: get_candidate
-- One candidate.
SELECT candidate_id, embedding, metadata, created_at, access_count, success_rate
FROM candidates
WHERE tenant = ?1 AND candidate_id = ?2;

-- name: query_candidates
-- The most used first, among equals the latest, then by id so that the order is always the same.
SELECT candidate_id, embedding, metadata, created_at, access_count, success_rate
FROM candidates
WHERE tenant = ?1
ORDER BY access_count DESC, created_at DESC, candidate_id
LIMIT ?2;

-- name: delete_candidate
-- Removes a candidate; its routings stay.
DELETE FROM candidates WHERE tenant = ?1 AND candidate_id = ?2;

-- name: record_routing
-- Appends what was decided about a candidate.
INSERT INTO candidate_routings (tenant, candidate_id, query_embedding, confidence, use_lightweight, uncertainty,
                                inference_time_us, routed_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8);

-- name: routing_statistics
-- Counts and means over every routing of the tenant; the means are NULL without one.
SELECT count(*), coalesce(sum(use_lightweight), 0), avg(inference_time_us), avg(confidence), avg(uncertainty)
FROM candidate_routings
WHERE tenant = ?1;
