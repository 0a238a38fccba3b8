-- Routing. The vector form answers with jsonb, the text form with one row of the same fields; the forms for many requests
-- decide all of them at once.

CREATE FUNCTION @extschema@.ruvector_route(
    request_embedding real[],
    optimize_for text DEFAULT 'balanced',
    constraints jsonb DEFAULT NULL,
    context jsonb DEFAULT NULL
) RETURNS jsonb LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(
    tiny_dancer._route_vector(tiny_dancer._bytes(request_embedding), optimize_for, constraints, context));
COMMENT ON FUNCTION @extschema@.ruvector_route(real[], text, jsonb, jsonb) IS
    'Chooses the agent for a request given by its vector. optimize_for: balanced, cost, latency, quality or '
    'quality_per_dollar. constraints: max_cost, max_latency_ms, min_quality, required_capabilities, excluded_agents, '
    'budget_remaining, good_enough, on_no_match (error or null). context: key, tags, task, route_name, for accounts and '
    'budgets. A pgvector column passes without a cast.';

CREATE FUNCTION @extschema@.ruvector_route(
    request_embedding double precision[],
    optimize_for text DEFAULT 'balanced',
    constraints jsonb DEFAULT NULL,
    context jsonb DEFAULT NULL
) RETURNS jsonb LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(
    tiny_dancer._route_vector(tiny_dancer._bytes(request_embedding::real[]), optimize_for, constraints, context));
COMMENT ON FUNCTION @extschema@.ruvector_route(double precision[], text, jsonb, jsonb) IS
    'As ruvector_route(real[], text, jsonb, jsonb), for arrays of double precision.';

CREATE FUNCTION @extschema@.ruvector_route(
    request_embedding numeric[],
    optimize_for text DEFAULT 'balanced',
    constraints jsonb DEFAULT NULL,
    context jsonb DEFAULT NULL
) RETURNS jsonb LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN tiny_dancer._ok(
    tiny_dancer._route_vector(tiny_dancer._bytes(request_embedding::real[]), optimize_for, constraints, context));
COMMENT ON FUNCTION @extschema@.ruvector_route(numeric[], text, jsonb, jsonb) IS
    'As ruvector_route(real[], text, jsonb, jsonb), for arrays of numeric, such as ARRAY[0.1, 0.2].';

CREATE FUNCTION @extschema@.ruvector_route(
    request text,
    optimize_for text DEFAULT 'balanced',
    required_capabilities text[] DEFAULT NULL,
    max_cost double precision DEFAULT NULL,
    max_latency_ms double precision DEFAULT NULL,
    min_quality double precision DEFAULT NULL,
    budget_remaining double precision DEFAULT NULL,
    excluded_agents text[] DEFAULT NULL,
    good_enough double precision DEFAULT NULL,
    on_no_match text DEFAULT NULL,
    input_tokens double precision DEFAULT NULL,
    output_tokens double precision DEFAULT NULL,
    constraints jsonb DEFAULT NULL,
    context jsonb DEFAULT NULL,
    cached_input_tokens double precision DEFAULT NULL,
    infer_capabilities boolean DEFAULT NULL,
    OUT agent_name text, OUT confidence double precision, OUT estimated_cost double precision,
    OUT estimated_latency text, OUT estimated_latency_ms double precision, OUT expected_quality double precision,
    OUT similarity_score double precision, OUT uncertainty double precision, OUT reasoning text,
    OUT alternatives jsonb, OUT model text, OUT objective text, OUT decision_id text
) LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT d.agent_name, d.confidence, d.estimated_cost, d.estimated_latency, d.estimated_latency_ms,
           d.expected_quality, d.similarity_score, d.uncertainty, d.reasoning, d.alternatives, d.model,
           d.objective, d.decision_id
    FROM pg_catalog.jsonb_to_record(tiny_dancer._ok(tiny_dancer._route_text(request, optimize_for,
        CASE WHEN pg_catalog.num_nonnulls(
            constraints, required_capabilities, max_cost, max_latency_ms, min_quality, budget_remaining,
            excluded_agents, good_enough, on_no_match, input_tokens, output_tokens, context,
            cached_input_tokens, infer_capabilities) > 0
        THEN pg_catalog.jsonb_build_object(
            'constraints', constraints, 'required_capabilities', required_capabilities, 'max_cost', max_cost,
            'max_latency_ms', max_latency_ms, 'min_quality', min_quality, 'budget_remaining', budget_remaining,
            'excluded_agents', excluded_agents, 'good_enough', good_enough, 'on_no_match', on_no_match,
            'input_tokens', input_tokens, 'output_tokens', output_tokens, 'context', context,
            'cached_input_tokens', cached_input_tokens, 'infer_capabilities', infer_capabilities) END))) AS d (
        agent_name text, confidence double precision, estimated_cost double precision, estimated_latency text,
        estimated_latency_ms double precision, expected_quality double precision, similarity_score double precision,
        uncertainty double precision, reasoning text, alternatives jsonb, model text, objective text, decision_id text);
END;
COMMENT ON FUNCTION @extschema@.ruvector_route(text, text, text[], double precision, double precision, double precision, double precision, text[], double precision,
    text, double precision, double precision, jsonb, jsonb, double precision, boolean) IS
    'Chooses the agent for a request given by its text; one row. Limits by name, or in constraints as jsonb; NULL is no '
    'limit. With on_no_match = ''null'' the row is all NULL where no agent fits, else that is an error (P0002). context: '
    'key, tags, task, route_name, for accounts and budgets. With infer_capabilities an agent must name the capabilities '
    'that the classifier says the request needs.';

CREATE FUNCTION @extschema@.ruvector_batch_route(
    requests text[],
    optimize_for text DEFAULT 'balanced',
    required_capabilities text[] DEFAULT NULL,
    max_cost double precision DEFAULT NULL,
    max_latency_ms double precision DEFAULT NULL,
    min_quality double precision DEFAULT NULL,
    budget_remaining double precision DEFAULT NULL,
    excluded_agents text[] DEFAULT NULL,
    good_enough double precision DEFAULT NULL,
    on_no_match text DEFAULT NULL,
    input_tokens double precision DEFAULT NULL,
    output_tokens double precision DEFAULT NULL,
    constraints jsonb DEFAULT NULL,
    explain boolean DEFAULT false,
    context jsonb DEFAULT NULL,
    cached_input_tokens double precision DEFAULT NULL
) RETURNS TABLE (
    request_number bigint, agent_name text, confidence double precision, estimated_cost double precision,
    estimated_latency text, estimated_latency_ms double precision, expected_quality double precision, similarity_score double precision,
    uncertainty double precision, reasoning text, alternatives jsonb, model text, objective text, decision_id text
) LANGUAGE sql VOLATILE PARALLEL UNSAFE ROWS 1000
BEGIN ATOMIC
    SELECT d.number, d.agent_name, d.confidence, d.estimated_cost, d.estimated_latency, d.estimated_latency_ms,
           d.expected_quality, d.similarity_score, d.uncertainty, d.reasoning, d.alternatives, d.model,
           d.objective, d.decision_id
    FROM tiny_dancer._route_many(requests, NULL, NULL, optimize_for,
        pg_catalog.jsonb_build_object(
            'constraints', constraints, 'required_capabilities', required_capabilities, 'max_cost', max_cost,
            'max_latency_ms', max_latency_ms, 'min_quality', min_quality, 'budget_remaining', budget_remaining,
            'excluded_agents', excluded_agents, 'good_enough', good_enough, 'on_no_match', on_no_match,
            'input_tokens', input_tokens, 'output_tokens', output_tokens, 'context', context,
            'cached_input_tokens', cached_input_tokens), explain) AS b
    CROSS JOIN LATERAL ROWS FROM (unnest(
        b.agent_name, b.confidence, b.estimated_cost, b.estimated_latency, b.estimated_latency_ms, b.expected_quality,
        b.similarity_score, b.uncertainty, b.reasoning, b.alternatives, b.model, b.objective, b.decision_id
    )) WITH ORDINALITY AS d (
        agent_name, confidence, estimated_cost, estimated_latency, estimated_latency_ms, expected_quality,
        similarity_score, uncertainty, reasoning, alternatives, model, objective, decision_id, number)
    WHERE tiny_dancer._ok(b.error) IS NULL;
END;
COMMENT ON FUNCTION @extschema@.ruvector_batch_route(text[], text, text[], double precision, double precision, double precision, double precision, text[], double precision,
    text, double precision, double precision, jsonb, boolean, jsonb, double precision) IS
    'Decides many requests at once: one row for each, numbered from 1, in their order. At most 100,000 in one call. '
    'reasoning and alternatives are NULL unless explain is true.';

CREATE FUNCTION @extschema@.ruvector_batch_route(
    request_embeddings real[],
    optimize_for text DEFAULT 'balanced',
    constraints jsonb DEFAULT NULL,
    explain boolean DEFAULT false,
    context jsonb DEFAULT NULL
) RETURNS TABLE (
    request_number bigint, agent_name text, confidence double precision, estimated_cost double precision,
    estimated_latency text, estimated_latency_ms double precision, expected_quality double precision, similarity_score double precision,
    uncertainty double precision, reasoning text, alternatives jsonb, model text, objective text, decision_id text
) LANGUAGE sql VOLATILE PARALLEL UNSAFE ROWS 1000
BEGIN ATOMIC
    SELECT d.number, d.agent_name, d.confidence, d.estimated_cost, d.estimated_latency, d.estimated_latency_ms,
           d.expected_quality, d.similarity_score, d.uncertainty, d.reasoning, d.alternatives, d.model,
           d.objective, d.decision_id
    FROM tiny_dancer._route_many(NULL, coalesce(tiny_dancer._bytes(request_embeddings), ''), NULL, optimize_for,
        pg_catalog.jsonb_build_object('constraints', constraints, 'context', context), explain) AS b
    CROSS JOIN LATERAL ROWS FROM (unnest(
        b.agent_name, b.confidence, b.estimated_cost, b.estimated_latency, b.estimated_latency_ms, b.expected_quality,
        b.similarity_score, b.uncertainty, b.reasoning, b.alternatives, b.model, b.objective, b.decision_id
    )) WITH ORDINALITY AS d (
        agent_name, confidence, estimated_cost, estimated_latency, estimated_latency_ms, expected_quality,
        similarity_score, uncertainty, reasoning, alternatives, model, objective, decision_id, number)
    WHERE tiny_dancer._ok(b.error) IS NULL;
END;
COMMENT ON FUNCTION @extschema@.ruvector_batch_route(real[], text, jsonb, boolean, jsonb) IS
    'As ruvector_batch_route(text[]), for vectors: a two-dimensional array, as array_agg makes of a column of arrays.';

CREATE FUNCTION @extschema@.ruvector_route_rows(
    ids bigint[],
    requests text[],
    optimize_for text DEFAULT 'balanced',
    constraints jsonb DEFAULT NULL,
    explain boolean DEFAULT false,
    context jsonb DEFAULT NULL
) RETURNS TABLE (
    id bigint, agent_name text, confidence double precision, estimated_cost double precision, estimated_latency text,
    estimated_latency_ms double precision, expected_quality double precision, similarity_score double precision,
    uncertainty double precision, reasoning text, alternatives jsonb, model text, objective text, decision_id text
) LANGUAGE sql VOLATILE PARALLEL UNSAFE ROWS 1000
BEGIN ATOMIC
    SELECT d.number, d.agent_name, d.confidence, d.estimated_cost, d.estimated_latency, d.estimated_latency_ms,
           d.expected_quality, d.similarity_score, d.uncertainty, d.reasoning, d.alternatives, d.model,
           d.objective, d.decision_id
    FROM tiny_dancer._route_many(requests, NULL, pg_catalog.cardinality(ids), optimize_for,
        pg_catalog.jsonb_build_object('constraints', constraints, 'context', context), explain) AS b
    CROSS JOIN LATERAL ROWS FROM (unnest(
        ids, b.agent_name, b.confidence, b.estimated_cost, b.estimated_latency, b.estimated_latency_ms, b.expected_quality,
        b.similarity_score, b.uncertainty, b.reasoning, b.alternatives, b.model, b.objective, b.decision_id
    )) AS d (
        number, agent_name, confidence, estimated_cost, estimated_latency, estimated_latency_ms, expected_quality,
        similarity_score, uncertainty, reasoning, alternatives, model, objective, decision_id)
    WHERE tiny_dancer._ok(b.error) IS NULL;
END;
COMMENT ON FUNCTION @extschema@.ruvector_route_rows(bigint[], text[], text, jsonb, boolean, jsonb) IS
    'Decides the rows of a query at once, given as array_agg(id) and array_agg(content); each decision has its row''s id.';

CREATE FUNCTION @extschema@.ruvector_route_rows(
    ids bigint[],
    request_embeddings real[],
    optimize_for text DEFAULT 'balanced',
    constraints jsonb DEFAULT NULL,
    explain boolean DEFAULT false,
    context jsonb DEFAULT NULL
) RETURNS TABLE (
    id bigint, agent_name text, confidence double precision, estimated_cost double precision, estimated_latency text,
    estimated_latency_ms double precision, expected_quality double precision, similarity_score double precision,
    uncertainty double precision, reasoning text, alternatives jsonb, model text, objective text, decision_id text
) LANGUAGE sql VOLATILE PARALLEL UNSAFE ROWS 1000
BEGIN ATOMIC
    SELECT d.number, d.agent_name, d.confidence, d.estimated_cost, d.estimated_latency, d.estimated_latency_ms,
           d.expected_quality, d.similarity_score, d.uncertainty, d.reasoning, d.alternatives, d.model,
           d.objective, d.decision_id
    FROM tiny_dancer._route_many(NULL, coalesce(tiny_dancer._bytes(request_embeddings), ''),
        pg_catalog.cardinality(ids), optimize_for, pg_catalog.jsonb_build_object('constraints', constraints, 'context', context),
        explain) AS b
    CROSS JOIN LATERAL ROWS FROM (unnest(
        ids, b.agent_name, b.confidence, b.estimated_cost, b.estimated_latency, b.estimated_latency_ms, b.expected_quality,
        b.similarity_score, b.uncertainty, b.reasoning, b.alternatives, b.model, b.objective, b.decision_id
    )) AS d (
        number, agent_name, confidence, estimated_cost, estimated_latency, estimated_latency_ms, expected_quality,
        similarity_score, uncertainty, reasoning, alternatives, model, objective, decision_id)
    WHERE tiny_dancer._ok(b.error) IS NULL;
END;
COMMENT ON FUNCTION @extschema@.ruvector_route_rows(bigint[], real[], text, jsonb, boolean, jsonb) IS
    'As ruvector_route_rows(bigint[], text[]), for vectors: array_agg(id) and array_agg(embedding).';

CREATE FUNCTION @extschema@.ruvector_embed(content text) RETURNS real[]
    LANGUAGE sql IMMUTABLE PARALLEL UNSAFE
RETURN tiny_dancer._ok(tiny_dancer._embed(content))::real[];
COMMENT ON FUNCTION @extschema@.ruvector_embed(text) IS
    'The unit vector of a text in the space of all-MiniLM-L6-v2, 384 dimensions, by the embedder that ships with this '
    'version. The same text gives the same vector until the extension is updated.';

CREATE FUNCTION tiny_dancer.use_pgvector() RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    kind text;
    made boolean := false;
BEGIN
    -- A function for halfvec alone would make calls with a vector ambiguous: pgvector casts vector to halfvec, too.
    FOR kind IN
        SELECT t.oid::regtype::text
        FROM pg_extension AS e
        JOIN pg_depend AS d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
            AND d.classid = 'pg_type'::regclass
        JOIN pg_type AS t ON t.oid = d.objid AND t.typname IN ('vector', 'halfvec')
        WHERE e.extname = 'vector'
        ORDER BY t.typname DESC
    LOOP
        CONTINUE WHEN to_regprocedure(format('@extschema@.ruvector_route(%s, text, jsonb, jsonb)', kind)) IS NOT NULL;
        EXECUTE format($sql$
            CREATE FUNCTION @extschema@.ruvector_route(
                request_embedding %1$s, optimize_for text DEFAULT 'balanced', constraints jsonb DEFAULT NULL,
                context jsonb DEFAULT NULL
            ) RETURNS jsonb LANGUAGE sql VOLATILE PARALLEL UNSAFE
            RETURN tiny_dancer._ok(
                tiny_dancer._route_vector(tiny_dancer._bytes(request_embedding::real[]), optimize_for, constraints, context));
            COMMENT ON FUNCTION @extschema@.ruvector_route(%1$s, text, jsonb, jsonb) IS
                'As ruvector_route(real[], text, jsonb, jsonb), for a type of pgvector.';
            $sql$, kind);
        made := true;
    END LOOP;
    RETURN made;
END;
$body$;
COMMENT ON FUNCTION tiny_dancer.use_pgvector() IS
    'Where pgvector came after this extension, or a dump was restored: makes ruvector_route take its halfvec, too '
    '(a vector passes anyway). Whether there was anything to do.';

-- Where pgvector is there already, those functions are part of the extension.
DO $body$ BEGIN PERFORM tiny_dancer.use_pgvector(); END; $body$;
