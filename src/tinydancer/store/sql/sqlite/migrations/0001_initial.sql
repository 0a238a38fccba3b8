-- The tables of Tiny Dancer. Money in USD, latencies in milliseconds, qualities and probabilities in [0, 1], instants in
-- seconds since 1970 (UTC), vectors as little-endian float32, structures as JSON.

PRAGMA application_id = 1413762627; -- "TDNC": tells a store from any other SQLite file

-- One row: the vector space of everything in this file.
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    space_name TEXT NOT NULL CHECK (length(space_name) BETWEEN 1 AND 200),
    space_dim INTEGER NOT NULL CHECK (space_dim BETWEEN 1 AND 65536),
    created_at REAL NOT NULL
) STRICT;

-- One row per tenant that ever registered an agent. registry_version grows with every change to its agents;
-- agent_stats and agent_histograms hold its outcomes up to the id rolled_up_to.
CREATE TABLE tenants (
    tenant TEXT PRIMARY KEY CHECK (length(tenant) BETWEEN 1 AND 200),
    registry_version INTEGER NOT NULL DEFAULT 0 CHECK (registry_version >= 0),
    rolled_up_to INTEGER NOT NULL DEFAULT 0 CHECK (rolled_up_to >= 0)
) STRICT, WITHOUT ROWID;

-- Agents as registered. Removing one sets removed_at: decisions and outcomes keep its name.
CREATE TABLE agents (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (tenant),
    name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    agent_type TEXT NOT NULL CHECK (length(agent_type) BETWEEN 1 AND 200),
    capabilities TEXT NOT NULL CHECK (json_type(capabilities) = 'array'),
    cost_model TEXT NOT NULL CHECK (json_type(cost_model) = 'object'),
    avg_latency_ms REAL CHECK (avg_latency_ms >= 0),
    quality_score REAL CHECK (quality_score BETWEEN 0 AND 1),
    expected_output_tokens REAL CHECK (expected_output_tokens >= 0),
    is_active INTEGER NOT NULL CHECK (is_active IN (0, 1)),
    metadata TEXT NOT NULL CHECK (json_type(metadata) = 'object'),
    embedding BLOB CHECK (length(embedding) > 0 AND length(embedding) % 4 = 0),
    registered_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    removed_at REAL
) STRICT;

CREATE UNIQUE INDEX agents_by_name ON agents (tenant, name) WHERE removed_at IS NULL;

-- What was observed of each agent up to tenants.rolled_up_to.
CREATE TABLE agent_stats (
    agent_id INTEGER PRIMARY KEY REFERENCES agents (id),
    tenant TEXT NOT NULL,
    total_requests INTEGER NOT NULL CHECK (total_requests >= 0),
    successes INTEGER NOT NULL CHECK (successes BETWEEN 0 AND total_requests),
    latency_count INTEGER NOT NULL CHECK (latency_count >= 0),
    latency_sum_ms REAL NOT NULL CHECK (latency_sum_ms >= 0),
    quality_count INTEGER NOT NULL CHECK (quality_count >= 0),
    quality_sum REAL NOT NULL CHECK (quality_sum >= 0),
    unjudged_failures INTEGER NOT NULL CHECK (unjudged_failures >= 0),
    cost_count INTEGER NOT NULL CHECK (cost_count >= 0),
    cost_sum_usd REAL NOT NULL CHECK (cost_sum_usd >= 0),
    output_tokens_count INTEGER NOT NULL CHECK (output_tokens_count >= 0),
    output_tokens_sum INTEGER NOT NULL CHECK (output_tokens_sum >= 0)
) STRICT;

CREATE INDEX agent_stats_by_tenant ON agent_stats (tenant);

-- How many of them fell into each latency bucket and quality bin.
CREATE TABLE agent_histograms (
    tenant TEXT NOT NULL,
    agent_id INTEGER NOT NULL REFERENCES agents (id),
    measure TEXT NOT NULL CHECK (measure IN ('latency_ms', 'quality')),
    bucket INTEGER NOT NULL CHECK (bucket >= 0),
    count INTEGER NOT NULL CHECK (count > 0),
    PRIMARY KEY (tenant, agent_id, measure, bucket)
) STRICT, WITHOUT ROWID;

-- Every decision that was recorded. Probabilities and similarities leave room for rounding.
CREATE TABLE decisions (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    decision_id TEXT NOT NULL CHECK (length(decision_id) BETWEEN 1 AND 200),
    decided_at REAL NOT NULL CHECK (decided_at >= 0),
    agent_id INTEGER NOT NULL REFERENCES agents (id),
    objective TEXT NOT NULL CHECK (length(objective) > 0),
    expected_quality REAL NOT NULL CHECK (expected_quality BETWEEN 0 AND 1.0001),
    confidence REAL NOT NULL CHECK (confidence BETWEEN 0 AND 1.0001),
    uncertainty REAL NOT NULL CHECK (uncertainty BETWEEN 0 AND 1.0001),
    estimated_cost_usd REAL CHECK (estimated_cost_usd >= 0),
    estimated_latency_ms REAL CHECK (estimated_latency_ms >= 0),
    similarity_score REAL NOT NULL CHECK (similarity_score BETWEEN -1.0001 AND 1.0001),
    input_tokens REAL NOT NULL CHECK (input_tokens >= 0),
    constraints TEXT NOT NULL CHECK (json_type(constraints) = 'object'),
    model TEXT,
    request TEXT
) STRICT;

CREATE UNIQUE INDEX decisions_by_decision_id ON decisions (tenant, decision_id);
CREATE INDEX decisions_by_time ON decisions (tenant, decided_at);

-- Every outcome that was reported, appended in the order of id; the buckets are those of tinydancer.learn.
CREATE TABLE outcomes (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    agent_id INTEGER NOT NULL REFERENCES agents (id),
    decision_id TEXT,
    occurred_at REAL NOT NULL CHECK (occurred_at >= 0),
    success INTEGER NOT NULL CHECK (success IN (0, 1)),
    quality REAL CHECK (quality BETWEEN 0 AND 1),
    quality_bin INTEGER CHECK ((quality_bin IS NULL) = (quality IS NULL)),
    latency_ms REAL CHECK (latency_ms >= 0),
    latency_bucket INTEGER CHECK ((latency_bucket IS NULL) = (latency_ms IS NULL)),
    cost_usd REAL CHECK (cost_usd >= 0),
    input_tokens INTEGER CHECK (input_tokens >= 0),
    output_tokens INTEGER CHECK (output_tokens >= 0)
) STRICT;

CREATE INDEX outcomes_by_tenant ON outcomes (tenant);
CREATE INDEX outcomes_by_decision_id ON outcomes (tenant, decision_id) WHERE decision_id IS NOT NULL;

-- Semantic routes: a request that resembles a route's utterances goes to its agent. Among routes that pass their
-- thresholds the highest priority wins. conditions: time_range, user_tier, rate_limit.
CREATE TABLE routes (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    description TEXT NOT NULL DEFAULT '',
    target_agent TEXT NOT NULL CHECK (length(target_agent) BETWEEN 1 AND 200),
    priority INTEGER NOT NULL DEFAULT 0,
    threshold REAL CHECK (threshold BETWEEN -1 AND 1),
    conditions TEXT NOT NULL DEFAULT '{}' CHECK (json_type(conditions) = 'object'),
    calibration TEXT CHECK (json_type(calibration) = 'object'),
    is_active INTEGER NOT NULL DEFAULT 1 CHECK (is_active IN (0, 1)),
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    UNIQUE (tenant, name)
) STRICT;

-- Examples of what a route is for; utterance is NULL where only a vector was given.
CREATE TABLE route_utterances (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    route_id INTEGER NOT NULL REFERENCES routes (id) ON DELETE CASCADE,
    utterance TEXT,
    embedding BLOB NOT NULL CHECK (length(embedding) > 0 AND length(embedding) % 4 = 0),
    created_at REAL NOT NULL
) STRICT;

CREATE INDEX route_utterances_by_route ON route_utterances (tenant, route_id);

-- What may be spent per period, by one agent or, with agent_id NULL, by all. What was spent is summed from outcomes.
CREATE TABLE budgets (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    agent_id INTEGER REFERENCES agents (id),
    limit_usd REAL NOT NULL CHECK (limit_usd >= 0),
    period_days REAL NOT NULL CHECK (period_days > 0),
    starts_at REAL NOT NULL,
    quality_threshold REAL CHECK (quality_threshold BETWEEN 0 AND 1),
    latency_threshold_ms REAL CHECK (latency_threshold_ms >= 0),
    is_active INTEGER NOT NULL DEFAULT 1 CHECK (is_active IN (0, 1)),
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
) STRICT;

CREATE INDEX budgets_by_agent ON budgets (tenant, agent_id);

-- Circuit breakers shared by all processes: one per guarded thing, an agent or the inference of a model.
CREATE TABLE breakers (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    state TEXT NOT NULL CHECK (state IN ('closed', 'open', 'half_open')),
    failures INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0),
    successes INTEGER NOT NULL DEFAULT 0 CHECK (successes >= 0),
    probes INTEGER NOT NULL DEFAULT 0 CHECK (probes >= 0),
    opened_at REAL,
    changed_at REAL NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;

-- Trained weights: the artifact itself, or the path of its file; sha256 identifies it. One of a kind is active.
CREATE TABLE models (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (length(kind) BETWEEN 1 AND 200),
    name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
    artifact BLOB,
    path TEXT,
    metadata TEXT NOT NULL DEFAULT '{}' CHECK (json_type(metadata) = 'object'),
    is_active INTEGER NOT NULL DEFAULT 0 CHECK (is_active IN (0, 1)),
    created_at REAL NOT NULL,
    CHECK ((artifact IS NULL) <> (path IS NULL)),
    UNIQUE (tenant, kind, name)
) STRICT;

CREATE UNIQUE INDEX models_active ON models (tenant, kind) WHERE is_active = 1;

-- Comparisons of ways to route: the arms with their shares of the traffic, and the seed that assigns requests to them.
CREATE TABLE experiments (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    arms TEXT NOT NULL CHECK (json_type(arms) = 'array'),
    seed INTEGER NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL CHECK (ended_at >= started_at),
    metadata TEXT NOT NULL DEFAULT '{}' CHECK (json_type(metadata) = 'object'),
    UNIQUE (tenant, name)
) STRICT;

-- Memories, documents, responses that may already answer a request.
CREATE TABLE candidates (
    tenant TEXT NOT NULL,
    candidate_id TEXT NOT NULL CHECK (length(candidate_id) BETWEEN 1 AND 200),
    embedding BLOB NOT NULL CHECK (length(embedding) > 0 AND length(embedding) % 4 = 0),
    metadata TEXT NOT NULL CHECK (json_type(metadata) = 'object'),
    created_at REAL NOT NULL CHECK (created_at >= 0),
    access_count INTEGER NOT NULL CHECK (access_count >= 0),
    success_rate REAL NOT NULL CHECK (success_rate BETWEEN 0 AND 1),
    PRIMARY KEY (tenant, candidate_id)
) STRICT;

CREATE INDEX candidates_by_use ON candidates (tenant, access_count, created_at);

-- How candidates were judged; rows outlive their candidates.
CREATE TABLE candidate_routings (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    candidate_id TEXT NOT NULL CHECK (length(candidate_id) BETWEEN 1 AND 200),
    query_embedding BLOB NOT NULL CHECK (length(query_embedding) > 0 AND length(query_embedding) % 4 = 0),
    confidence REAL NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    use_lightweight INTEGER NOT NULL CHECK (use_lightweight IN (0, 1)),
    uncertainty REAL NOT NULL CHECK (uncertainty BETWEEN 0 AND 1),
    inference_time_us REAL NOT NULL CHECK (inference_time_us >= 0),
    routed_at REAL NOT NULL CHECK (routed_at >= 0)
) STRICT;

CREATE INDEX candidate_routings_by_tenant ON candidate_routings (tenant);
