-- The tables of Tiny Dancer in the schema tiny_dancer, which whoever runs this has made: the PostgreSQL store or the
-- extension. Money in USD, latencies in milliseconds, qualities and probabilities in [0, 1], instants to the
-- microsecond. A constraint's name holds the column's, so that an error can say which value was refused.

-- Whose rows a session sees and writes: the setting tiny_dancer.tenant. The body is parsed here, once, so that no
-- search_path of a caller can lend the operators in it another meaning.
CREATE FUNCTION tiny_dancer.current_tenant() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN coalesce(nullif(pg_catalog.current_setting('tiny_dancer.tenant', true), ''), 'default');

COMMENT ON FUNCTION tiny_dancer.current_tenant() IS
    'The tenant of this session: the setting tiny_dancer.tenant, or default.';

-- What was applied to this database, by the store or by the extension's scripts.
CREATE TABLE tiny_dancer.schema_migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);

-- One row: the vector space of everything in this database.
CREATE TABLE tiny_dancer.meta (
    id integer PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    space_name text NOT NULL CHECK (char_length(space_name) BETWEEN 1 AND 200),
    space_dim integer NOT NULL CHECK (space_dim BETWEEN 1 AND 65536),
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);

-- The version of each tenant's agents. It is taken from a sequence because sessions keep snapshots by it: a number that
-- was seen in a transaction that was rolled back never comes again.
CREATE SEQUENCE tiny_dancer.registry_version_seq AS bigint;

CREATE TABLE tiny_dancer.registry_versions (
    tenant text PRIMARY KEY DEFAULT tiny_dancer.current_tenant() CHECK (char_length(tenant) BETWEEN 1 AND 200),
    version bigint NOT NULL
) WITH (fillfactor = 50);

-- Agents as registered. Removing one sets removed_at and never deletes the row, which is why decisions and outcomes
-- need no foreign key: checking one would lock the agent's row, and a hundred sessions that report on one agent would
-- take turns at it.
CREATE TABLE tiny_dancer.agents (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL DEFAULT tiny_dancer.current_tenant() CHECK (char_length(tenant) BETWEEN 1 AND 200),
    name text COLLATE "C" NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    agent_type text NOT NULL CHECK (char_length(agent_type) BETWEEN 1 AND 200),
    capabilities text[] NOT NULL DEFAULT '{}' CHECK (array_position(capabilities, NULL) IS NULL),
    cost_model jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(cost_model) = 'object'),
    avg_latency_ms double precision CHECK (avg_latency_ms BETWEEN 0 AND 1e300),
    quality_score double precision CHECK (quality_score BETWEEN 0 AND 1),
    expected_output_tokens double precision CHECK (expected_output_tokens BETWEEN 0 AND 1e300),
    is_active boolean NOT NULL DEFAULT true,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    embedding real[] CHECK (array_ndims(embedding) = 1 AND array_position(embedding, NULL) IS NULL),
    registered_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    removed_at timestamptz
);

CREATE UNIQUE INDEX agents_by_name ON tiny_dancer.agents (tenant, name) WHERE removed_at IS NULL;
-- Vectors do not compress; trying takes longer than reading.
ALTER TABLE tiny_dancer.agents ALTER COLUMN embedding SET STORAGE EXTERNAL;

-- What was observed of each agent, except what stands in outcome_tail.
CREATE TABLE tiny_dancer.agent_stats (
    tenant text NOT NULL DEFAULT tiny_dancer.current_tenant(),
    agent_id bigint NOT NULL REFERENCES tiny_dancer.agents (id),
    total_requests bigint NOT NULL CHECK (total_requests >= 0),
    successes bigint NOT NULL CHECK (successes BETWEEN 0 AND total_requests),
    latency_count bigint NOT NULL CHECK (latency_count >= 0),
    latency_sum_ms double precision NOT NULL CHECK (latency_sum_ms >= 0),
    quality_count bigint NOT NULL CHECK (quality_count >= 0),
    quality_sum double precision NOT NULL CHECK (quality_sum >= 0),
    unjudged_failures bigint NOT NULL CHECK (unjudged_failures >= 0),
    cost_count bigint NOT NULL CHECK (cost_count >= 0),
    cost_sum_usd double precision NOT NULL CHECK (cost_sum_usd >= 0),
    output_tokens_count bigint NOT NULL CHECK (output_tokens_count >= 0),
    output_tokens_sum bigint NOT NULL CHECK (output_tokens_sum >= 0),
    PRIMARY KEY (tenant, agent_id)
) WITH (fillfactor = 50);

-- How many of them fell into each latency bucket and quality bin; the buckets are those of tinydancer.learn.
CREATE TABLE tiny_dancer.agent_histograms (
    tenant text NOT NULL DEFAULT tiny_dancer.current_tenant(),
    agent_id bigint NOT NULL,
    measure text NOT NULL CHECK (measure IN ('latency_ms', 'quality')),
    bucket integer NOT NULL CHECK (bucket >= 0),
    count bigint NOT NULL CHECK (count > 0),
    PRIMARY KEY (tenant, agent_id, measure, bucket)
) WITH (fillfactor = 50);

-- How many outcomes of the tenant are rolled up, and a sum over the hashes of their ids: with the tail added, both tell
-- one set of visible outcomes from another.
CREATE TABLE tiny_dancer.rolled_up (
    tenant text PRIMARY KEY DEFAULT tiny_dancer.current_tenant(),
    outcomes bigint NOT NULL CHECK (outcomes >= 0),
    fingerprint bigint NOT NULL
) WITH (fillfactor = 50);

-- Every decision that was recorded. Probabilities and similarities leave room for rounding.
CREATE TABLE tiny_dancer.decisions (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant text NOT NULL DEFAULT tiny_dancer.current_tenant() CHECK (char_length(tenant) BETWEEN 1 AND 200),
    decision_id text COLLATE "C" NOT NULL CHECK (char_length(decision_id) BETWEEN 1 AND 200),
    decided_at timestamptz NOT NULL,
    agent_id bigint NOT NULL,
    objective text NOT NULL CHECK (objective <> ''),
    expected_quality double precision NOT NULL CHECK (expected_quality BETWEEN 0 AND 1.0001),
    confidence double precision NOT NULL CHECK (confidence BETWEEN 0 AND 1.0001),
    uncertainty double precision NOT NULL CHECK (uncertainty BETWEEN 0 AND 1.0001),
    estimated_cost_usd double precision CHECK (estimated_cost_usd BETWEEN 0 AND 1e300),
    estimated_latency_ms double precision CHECK (estimated_latency_ms BETWEEN 0 AND 1e300),
    similarity_score double precision NOT NULL CHECK (similarity_score BETWEEN -1.0001 AND 1.0001),
    input_tokens double precision NOT NULL CHECK (input_tokens BETWEEN 0 AND 1e300),
    constraints jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(constraints) = 'object'),
    model text,
    request text,
    PRIMARY KEY (tenant, decision_id)
);

CREATE INDEX decisions_by_time ON tiny_dancer.decisions (tenant, decided_at);

-- Every outcome that was reported.
CREATE TABLE tiny_dancer.outcomes (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant text NOT NULL DEFAULT tiny_dancer.current_tenant(),
    agent_id bigint NOT NULL,
    decision_id text COLLATE "C",
    occurred_at timestamptz NOT NULL,
    success boolean NOT NULL,
    quality double precision,
    quality_bin integer,
    latency_ms double precision,
    latency_bucket integer,
    cost_usd double precision,
    input_tokens bigint,
    output_tokens bigint,
    PRIMARY KEY (tenant, id),
    -- One constraint, not one per column: the server parses each of them anew at every INSERT, and this is where
    -- everybody writes. A part that is NULL lets the row pass, as it would on its own.
    CONSTRAINT outcomes_in_range CHECK (
        char_length(tenant) BETWEEN 1 AND 200
        AND quality BETWEEN 0 AND 1
        AND (quality_bin IS NULL) = (quality IS NULL)
        AND latency_ms BETWEEN 0 AND 1e300
        AND (latency_bucket IS NULL) = (latency_ms IS NULL)
        AND cost_usd BETWEEN 0 AND 1e300
        AND input_tokens >= 0
        AND output_tokens >= 0
    )
);

CREATE INDEX outcomes_by_decision_id ON tiny_dancer.outcomes (tenant, decision_id) WHERE decision_id IS NOT NULL;

-- The outcomes that are not rolled up yet: a queue. Statistics are agent_stats and agent_histograms plus these rows,
-- read in one statement; rolling up moves rows from here to there in one statement. A transaction that is still open
-- keeps its rows here, so none is lost and none is counted twice.
CREATE TABLE tiny_dancer.outcome_tail (
    tenant text NOT NULL DEFAULT tiny_dancer.current_tenant(),
    outcome_id bigint NOT NULL,
    agent_id bigint NOT NULL,
    success boolean NOT NULL,
    quality double precision,
    quality_bin integer,
    latency_ms double precision,
    latency_bucket integer,
    cost_usd double precision,
    output_tokens bigint,
    PRIMARY KEY (tenant, outcome_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_scale_factor = 0,
        autovacuum_analyze_threshold = 10000);

-- Semantic routes: a request that resembles a route's utterances goes to its agent. Among routes that pass their
-- thresholds the highest priority wins. conditions: time_range, user_tier, rate_limit.
CREATE TABLE tiny_dancer.routes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL DEFAULT tiny_dancer.current_tenant() CHECK (char_length(tenant) BETWEEN 1 AND 200),
    name text COLLATE "C" NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    description text NOT NULL DEFAULT '',
    target_agent text COLLATE "C" NOT NULL CHECK (char_length(target_agent) BETWEEN 1 AND 200),
    priority integer NOT NULL DEFAULT 0,
    threshold double precision CHECK (threshold BETWEEN -1 AND 1),
    conditions jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(conditions) = 'object'),
    calibration jsonb CHECK (jsonb_typeof(calibration) = 'object'),
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    UNIQUE (tenant, name)
);

-- Examples of what a route is for; utterance is NULL where only a vector was given.
CREATE TABLE tiny_dancer.route_utterances (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL DEFAULT tiny_dancer.current_tenant() CHECK (char_length(tenant) BETWEEN 1 AND 200),
    route_id bigint NOT NULL REFERENCES tiny_dancer.routes (id) ON DELETE CASCADE,
    utterance text,
    embedding real[] NOT NULL CHECK (array_ndims(embedding) = 1 AND array_position(embedding, NULL) IS NULL),
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);

CREATE INDEX route_utterances_by_route ON tiny_dancer.route_utterances (tenant, route_id);
CREATE INDEX route_utterances_by_route_id ON tiny_dancer.route_utterances (route_id);
ALTER TABLE tiny_dancer.route_utterances ALTER COLUMN embedding SET STORAGE EXTERNAL;

-- What may be spent per period, by one agent or, with agent_id NULL, by all. What was spent is summed from outcomes.
CREATE TABLE tiny_dancer.budgets (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL DEFAULT tiny_dancer.current_tenant() CHECK (char_length(tenant) BETWEEN 1 AND 200),
    agent_id bigint REFERENCES tiny_dancer.agents (id),
    limit_usd double precision NOT NULL CHECK (limit_usd BETWEEN 0 AND 1e300),
    period_days double precision NOT NULL CHECK (period_days > 0 AND period_days <= 1e6),
    starts_at timestamptz NOT NULL,
    quality_threshold double precision CHECK (quality_threshold BETWEEN 0 AND 1),
    latency_threshold_ms double precision CHECK (latency_threshold_ms BETWEEN 0 AND 1e300),
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);

CREATE INDEX budgets_by_agent ON tiny_dancer.budgets (tenant, agent_id);

-- Circuit breakers shared by all sessions: one per guarded thing, an agent or the inference of a model.
CREATE TABLE tiny_dancer.breakers (
    tenant text NOT NULL DEFAULT tiny_dancer.current_tenant() CHECK (char_length(tenant) BETWEEN 1 AND 200),
    name text COLLATE "C" NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    state text NOT NULL CHECK (state IN ('closed', 'open', 'half_open')),
    failures integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    successes integer NOT NULL DEFAULT 0 CHECK (successes >= 0),
    probes integer NOT NULL DEFAULT 0 CHECK (probes >= 0),
    opened_at timestamptz,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, name)
) WITH (fillfactor = 50);

-- Trained weights: the artifact itself, or the path of its file; sha256 identifies it. One of a kind is active.
CREATE TABLE tiny_dancer.models (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL DEFAULT tiny_dancer.current_tenant() CHECK (char_length(tenant) BETWEEN 1 AND 200),
    kind text NOT NULL CHECK (char_length(kind) BETWEEN 1 AND 200),
    name text COLLATE "C" NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    sha256 text NOT NULL CHECK (char_length(sha256) = 64),
    artifact bytea,
    path text,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    is_active boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT models_artifact_or_path_check CHECK ((artifact IS NULL) <> (path IS NULL)),
    UNIQUE (tenant, kind, name)
);

CREATE UNIQUE INDEX models_active ON tiny_dancer.models (tenant, kind) WHERE is_active;

-- Comparisons of ways to route: the arms with their shares of the traffic, and the seed that assigns requests to them.
CREATE TABLE tiny_dancer.experiments (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL DEFAULT tiny_dancer.current_tenant() CHECK (char_length(tenant) BETWEEN 1 AND 200),
    name text COLLATE "C" NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    arms jsonb NOT NULL CHECK (jsonb_typeof(arms) = 'array'),
    seed bigint NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz CHECK (ended_at >= started_at),
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    UNIQUE (tenant, name)
);

-- Each tenant sees and writes its own rows, the owner of the tables included. Superusers and roles with BYPASSRLS are
-- not held by policies, so every query names the tenant as well.
ALTER TABLE tiny_dancer.registry_versions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tiny_dancer.registry_versions
    USING (tenant = tiny_dancer.current_tenant()) WITH CHECK (tenant = tiny_dancer.current_tenant());

ALTER TABLE tiny_dancer.agents ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tiny_dancer.agents
    USING (tenant = tiny_dancer.current_tenant()) WITH CHECK (tenant = tiny_dancer.current_tenant());

ALTER TABLE tiny_dancer.agent_stats ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tiny_dancer.agent_stats
    USING (tenant = tiny_dancer.current_tenant()) WITH CHECK (tenant = tiny_dancer.current_tenant());

ALTER TABLE tiny_dancer.agent_histograms ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tiny_dancer.agent_histograms
    USING (tenant = tiny_dancer.current_tenant()) WITH CHECK (tenant = tiny_dancer.current_tenant());

ALTER TABLE tiny_dancer.rolled_up ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tiny_dancer.rolled_up
    USING (tenant = tiny_dancer.current_tenant()) WITH CHECK (tenant = tiny_dancer.current_tenant());

ALTER TABLE tiny_dancer.decisions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tiny_dancer.decisions
    USING (tenant = tiny_dancer.current_tenant()) WITH CHECK (tenant = tiny_dancer.current_tenant());

ALTER TABLE tiny_dancer.outcomes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tiny_dancer.outcomes
    USING (tenant = tiny_dancer.current_tenant()) WITH CHECK (tenant = tiny_dancer.current_tenant());

ALTER TABLE tiny_dancer.outcome_tail ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tiny_dancer.outcome_tail
    USING (tenant = tiny_dancer.current_tenant()) WITH CHECK (tenant = tiny_dancer.current_tenant());

ALTER TABLE tiny_dancer.routes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tiny_dancer.routes
    USING (tenant = tiny_dancer.current_tenant()) WITH CHECK (tenant = tiny_dancer.current_tenant());

ALTER TABLE tiny_dancer.route_utterances ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tiny_dancer.route_utterances
    USING (tenant = tiny_dancer.current_tenant()) WITH CHECK (tenant = tiny_dancer.current_tenant());

ALTER TABLE tiny_dancer.budgets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tiny_dancer.budgets
    USING (tenant = tiny_dancer.current_tenant()) WITH CHECK (tenant = tiny_dancer.current_tenant());

ALTER TABLE tiny_dancer.breakers ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tiny_dancer.breakers
    USING (tenant = tiny_dancer.current_tenant()) WITH CHECK (tenant = tiny_dancer.current_tenant());

ALTER TABLE tiny_dancer.models ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tiny_dancer.models
    USING (tenant = tiny_dancer.current_tenant()) WITH CHECK (tenant = tiny_dancer.current_tenant());

ALTER TABLE tiny_dancer.experiments ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tiny_dancer.experiments
    USING (tenant = tiny_dancer.current_tenant()) WITH CHECK (tenant = tiny_dancer.current_tenant());
