-- Agents. One function serves both documented forms of registration: six positional arguments, or named ones.

CREATE FUNCTION @extschema@.ruvector_register_agent(
    name text,
    agent_type text DEFAULT 'llm',
    capabilities text[] DEFAULT '{}',
    cost_per_request double precision DEFAULT NULL,
    avg_latency_ms double precision DEFAULT NULL,
    quality_score double precision DEFAULT NULL,
    cost_per_1k_tokens double precision DEFAULT NULL,
    cost_per_call double precision DEFAULT NULL,
    cost_per_second double precision DEFAULT NULL,
    cost_per_token double precision DEFAULT NULL,
    input_cost_per_token double precision DEFAULT NULL,
    output_cost_per_token double precision DEFAULT NULL,
    cached_input_cost_per_token double precision DEFAULT NULL,
    monthly_fixed_cost double precision DEFAULT NULL,
    expected_output_tokens double precision DEFAULT NULL,
    is_active boolean DEFAULT true,
    metadata jsonb DEFAULT NULL,
    embedding real[] DEFAULT NULL
) RETURNS boolean LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._call('register_agent', pg_catalog.jsonb_build_object(
    'name', name, 'agent_type', agent_type, 'capabilities', capabilities, 'cost_per_request', cost_per_request,
    'avg_latency_ms', avg_latency_ms, 'quality_score', quality_score, 'cost_per_1k_tokens', cost_per_1k_tokens,
    'cost_per_call', cost_per_call, 'cost_per_second', cost_per_second, 'cost_per_token', cost_per_token,
    'input_cost_per_token', input_cost_per_token, 'output_cost_per_token', output_cost_per_token,
    'cached_input_cost_per_token', cached_input_cost_per_token, 'monthly_fixed_cost', monthly_fixed_cost,
    'expected_output_tokens', expected_output_tokens, 'is_active', is_active, 'metadata', metadata,
    'embedding', embedding)))::boolean;
COMMENT ON FUNCTION @extschema@.ruvector_register_agent(
    text, text, text[], double precision, double precision, double precision, double precision, double precision,
    double precision, double precision, double precision, double precision, double precision, double precision,
    double precision, boolean, jsonb, real[]) IS
    'Registers an agent; true. By position: name, type, capabilities, cost per request, latency, quality; or by name. '
    'Prices in USD: one that is not given, or NULL, is unknown, 0 is free. A name that is taken is an error (42710).';

CREATE FUNCTION @extschema@.ruvector_register_agent_full(config jsonb) RETURNS boolean
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._call('register_agent_full',
    pg_catalog.jsonb_build_object('config', config)))::boolean;
COMMENT ON FUNCTION @extschema@.ruvector_register_agent_full(jsonb) IS
    'Registers an agent from one JSON object with every field and price; unknown keys are an error. True.';

CREATE FUNCTION @extschema@.ruvector_update_agent(name text, changes jsonb) RETURNS boolean
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._call('update_agent',
    pg_catalog.jsonb_build_object('name', name, 'changes', changes)))::boolean;
COMMENT ON FUNCTION @extschema@.ruvector_update_agent(text, jsonb) IS
    'Changes the fields that the JSON object names; what was observed of the agent stays. True.';

CREATE FUNCTION @extschema@.ruvector_remove_agent(name text) RETURNS boolean
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._call('remove_agent', pg_catalog.jsonb_build_object('name', name)))::boolean;
COMMENT ON FUNCTION @extschema@.ruvector_remove_agent(text) IS
    'Removes an agent; its decisions and outcomes stay in the accounts. True.';

CREATE FUNCTION @extschema@.ruvector_set_agent_active(name text, is_active boolean) RETURNS boolean
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._call('set_agent_active',
    pg_catalog.jsonb_build_object('name', name, 'is_active', is_active)))::boolean;
COMMENT ON FUNCTION @extschema@.ruvector_set_agent_active(text, boolean) IS
    'Switches an agent on or off; one that is off is never chosen. True.';

CREATE FUNCTION @extschema@.ruvector_get_agent(name text) RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._read('get_agent', pg_catalog.jsonb_build_object('name', name)));
COMMENT ON FUNCTION @extschema@.ruvector_get_agent(text) IS
    'One agent with what was observed of it; a name that is not registered is an error (42704).';

CREATE FUNCTION @extschema@.ruvector_list_agents() RETURNS TABLE (
    name text, agent_type text, capabilities text[], cost_per_request double precision,
    avg_latency_ms double precision, p95_latency_ms double precision, p99_latency_ms double precision,
    quality_score double precision, success_rate double precision, total_requests bigint, is_active boolean,
    total_cost_usd double precision, cost_model jsonb, expected_output_tokens double precision, metadata jsonb
) LANGUAGE sql STABLE PARALLEL UNSAFE ROWS 20
BEGIN ATOMIC
    SELECT a.name, a.agent_type, a.capabilities, a.cost_per_request, a.avg_latency_ms, a.p95_latency_ms,
           a.p99_latency_ms, a.quality_score, a.success_rate, a.total_requests, a.is_active, a.total_cost_usd,
           a.cost_model, a.expected_output_tokens, a.metadata
    FROM pg_catalog.jsonb_to_recordset(tiny_dancer._ok(tiny_dancer._read('list_agents', '{}'))) AS a (
        name text, agent_type text, capabilities text[], cost_per_request double precision,
        avg_latency_ms double precision, p95_latency_ms double precision, p99_latency_ms double precision,
        quality_score double precision, success_rate double precision, total_requests bigint, is_active boolean,
        total_cost_usd double precision, cost_model jsonb, expected_output_tokens double precision, metadata jsonb);
END;
COMMENT ON FUNCTION @extschema@.ruvector_list_agents() IS
    'Every agent of the tenant in order of name, with what was observed: means, percentiles (NULL until a latency was '
    'observed), success rate, number of outcomes.';

CREATE FUNCTION @extschema@.ruvector_find_agents_by_capability(capability text, "limit" integer DEFAULT 10)
RETURNS TABLE (
    name text, agent_type text, capabilities text[], cost_per_request double precision,
    avg_latency_ms double precision, quality_score double precision, success_rate double precision,
    total_requests bigint, similarity double precision, exact boolean
) LANGUAGE sql STABLE PARALLEL UNSAFE ROWS 10
BEGIN ATOMIC
    SELECT a.name, a.agent_type, a.capabilities, a.cost_per_request, a.avg_latency_ms, a.quality_score, a.success_rate,
           a.total_requests, a.similarity, a.exact
    FROM pg_catalog.jsonb_to_recordset(tiny_dancer._ok(tiny_dancer._read('find_agents',
        pg_catalog.jsonb_build_object('capability', ruvector_find_agents_by_capability.capability, 'limit', "limit")))) AS a (
        name text, agent_type text, capabilities text[], cost_per_request double precision,
        avg_latency_ms double precision, quality_score double precision, success_rate double precision,
        total_requests bigint, similarity double precision, exact boolean);
END;
COMMENT ON FUNCTION @extschema@.ruvector_find_agents_by_capability(text, integer) IS
    'Active agents that name the capability, best quality first (exact, similarity 1), then those nearest to it in '
    'meaning; at most limit.';

CREATE FUNCTION @extschema@.ruvector_clear_agents() RETURNS boolean
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._call('clear_agents', '{}'))::boolean;
COMMENT ON FUNCTION @extschema@.ruvector_clear_agents() IS
    'Removes every agent of the tenant; true. Only the owner of the extension''s tables may call it (else 42501).';
