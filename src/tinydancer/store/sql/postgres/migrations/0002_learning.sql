-- What a model learns from when an outcome is known, and what it has learned.

-- Little-endian float16 of the request: the embedding, then the surface features. NULL where nothing learns. Nobody
-- constrains it: the server would parse the constraint anew at every decision that is recorded.
ALTER TABLE tiny_dancer.decisions ADD COLUMN features bytea;

-- Neither vectors nor weights compress; trying takes longer than reading.
ALTER TABLE tiny_dancer.decisions ALTER COLUMN features SET STORAGE EXTERNAL;
ALTER TABLE tiny_dancer.models ALTER COLUMN artifact SET STORAGE EXTERNAL;

-- The judged outcomes of decisions, in order: what is read on from the last one learned.
CREATE INDEX outcomes_graded ON tiny_dancer.outcomes (tenant, id)
    WHERE decision_id IS NOT NULL AND (quality IS NOT NULL OR NOT success);

-- What was learned on top of a model's weights from outcomes up to the id up_to.
CREATE TABLE tiny_dancer.abilities (
    tenant text NOT NULL DEFAULT tiny_dancer.current_tenant() CHECK (char_length(tenant) BETWEEN 1 AND 200),
    model_sha256 text NOT NULL CHECK (char_length(model_sha256) = 64),
    up_to bigint NOT NULL CHECK (up_to >= 0),
    state bytea NOT NULL,
    PRIMARY KEY (tenant, model_sha256)
) WITH (fillfactor = 50);

ALTER TABLE tiny_dancer.abilities ALTER COLUMN state SET STORAGE EXTERNAL;

ALTER TABLE tiny_dancer.abilities ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tiny_dancer.abilities
    USING (tenant = tiny_dancer.current_tenant()) WITH CHECK (tenant = tiny_dancer.current_tenant());
