-- What an utterance is to its route, and how often a route was taken.

-- description: what the route says of itself, at most one; example; negative: what the route is not for.
ALTER TABLE route_utterances ADD COLUMN kind TEXT NOT NULL DEFAULT 'example'
    CHECK (kind IN ('description', 'example', 'negative'));

CREATE UNIQUE INDEX route_utterances_description ON route_utterances (route_id) WHERE kind = 'description';

-- The rate limit of a route: the instant at which all requests will have been given back.
CREATE TABLE route_limits (
    tenant TEXT NOT NULL,
    route_id INTEGER NOT NULL REFERENCES routes (id) ON DELETE CASCADE,
    full_at REAL NOT NULL,
    PRIMARY KEY (tenant, route_id)
) STRICT, WITHOUT ROWID;
