-- What a model learns from when an outcome is known, and what it has learned.

-- Little-endian float16 of the request: the embedding, then the surface features. NULL where nothing learns.
ALTER TABLE decisions ADD COLUMN features BLOB;

-- The judged outcomes of decisions, in order: what is read on from the last one learned.
CREATE INDEX outcomes_graded ON outcomes (tenant)
WHERE decision_id IS NOT NULL AND (quality IS NOT NULL OR success = 0);

-- What was learned on top of a model's weights from outcomes up to the id up_to.
CREATE TABLE abilities (
    tenant TEXT NOT NULL CHECK (length(tenant) BETWEEN 1 AND 200),
    model_sha256 TEXT NOT NULL CHECK (length(model_sha256) = 64),
    up_to INTEGER NOT NULL CHECK (up_to >= 0),
    state BLOB NOT NULL,
    PRIMARY KEY (tenant, model_sha256)
) STRICT;
