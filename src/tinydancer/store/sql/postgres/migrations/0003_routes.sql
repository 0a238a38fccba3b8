-- What an utterance is to its route, and how often a route was taken.

-- description: what the route says of itself, at most one; example; negative: what the route is not for.
ALTER TABLE tiny_dancer.route_utterances ADD COLUMN kind text NOT NULL DEFAULT 'example'
    CHECK (kind IN ('description', 'example', 'negative'));

CREATE UNIQUE INDEX route_utterances_description ON tiny_dancer.route_utterances (route_id) WHERE kind = 'description';

-- The rate limit of a route: the instant, in seconds since 1970, at which all requests will have been given back.
CREATE TABLE tiny_dancer.route_limits (
    tenant text NOT NULL DEFAULT tiny_dancer.current_tenant() CHECK (char_length(tenant) BETWEEN 1 AND 200),
    route_id bigint NOT NULL REFERENCES tiny_dancer.routes (id) ON DELETE CASCADE,
    full_at double precision NOT NULL,
    PRIMARY KEY (tenant, route_id)
) WITH (fillfactor = 50);

CREATE INDEX route_limits_by_route_id ON tiny_dancer.route_limits (route_id);

ALTER TABLE tiny_dancer.route_limits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tiny_dancer.route_limits
    USING (tenant = tiny_dancer.current_tenant()) WITH CHECK (tenant = tiny_dancer.current_tenant());
