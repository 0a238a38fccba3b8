-- Nearest agents by an index of pgvector, for registries of thousands of agents. Nothing of this is used until an owner
-- of the tables asks for it: docs/how-to/search-many-agents.md says from which size on it pays.

CREATE FUNCTION tiny_dancer._pgvector_schema() RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    found text := (SELECT e.extnamespace::regnamespace::text FROM pg_extension AS e WHERE e.extname = 'vector');
BEGIN
    IF found IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = '0A000', MESSAGE = 'This database has no pgvector.',
            HINT = 'As a superuser: CREATE EXTENSION vector;';
    END IF;
    RETURN found;
END;
$body$;
COMMENT ON FUNCTION tiny_dancer._pgvector_schema() IS
    'Internal. The schema of pgvector''s types and operators, quoted as needed; an error (0A000) without pgvector.';

CREATE FUNCTION tiny_dancer.build_agent_index() RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    vectors text := tiny_dancer._pgvector_schema();
    dim integer := (SELECT m.space_dim FROM tiny_dancer.meta AS m WHERE m.id = 1);
BEGIN
    IF to_regclass('tiny_dancer.agents_by_embedding') IS NOT NULL THEN
        RETURN false;
    END IF;
    -- Before the first agent the database can still be bound to another space, whose vectors the index would refuse.
    IF dim IS NULL OR NOT EXISTS (SELECT FROM tiny_dancer.agents) THEN
        RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = 'No agent was registered yet.',
            HINT = 'Register the agents first: an index over many is also built faster than it grows.';
    END IF;
    IF dim > 2000 THEN
        RAISE EXCEPTION USING ERRCODE = '0A000',
            MESSAGE = format('The vectors here have %s dimensions; pgvector indexes at most 2000.', dim),
            HINT = 'ruvector_find_agents_by_capability searches without an index.';
    END IF;
    EXECUTE format(
        'CREATE INDEX agents_by_embedding ON tiny_dancer.agents
         USING hnsw ((embedding::%1$s.vector(%2$s)) %1$s.vector_cosine_ops) WITH (m = 24, ef_construction = 200)
         WHERE removed_at IS NULL', vectors, dim);
    ANALYZE tiny_dancer.agents;
    RETURN true;
END;
$body$;
COMMENT ON FUNCTION tiny_dancer.build_agent_index() IS
    'Builds the index over the agents'' embeddings that nearest_agents uses: pgvector''s HNSW, of all tenants. False if '
    'it is there already; DROP INDEX tiny_dancer.agents_by_embedding takes it away. Only the tables'' owner may.';

CREATE FUNCTION tiny_dancer.nearest_agents(query real[], "limit" integer DEFAULT 10)
RETURNS TABLE (name text, agent_type text, capabilities text[], similarity double precision)
    LANGUAGE plpgsql STABLE PARALLEL UNSAFE ROWS 10 SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    vectors text := tiny_dancer._pgvector_schema();
    dim integer := (SELECT m.space_dim FROM tiny_dancer.meta AS m WHERE m.id = 1);
    wanted integer := coalesce("limit", 10);
    -- The tenant is a constant to the planner, which knows how many agents are this one's: for few it goes by the
    -- tenant and sorts, for many by the index over the embeddings.
    search text := format(
        'SELECT n.name, n.agent_type, n.capabilities, 1.0 - n.distance
         FROM (SELECT a.name, a.agent_type, a.capabilities,
                      a.embedding::%1$s.vector(%2$s) OPERATOR(%1$s.<=>) $1::%1$s.vector(%2$s) AS distance
               FROM tiny_dancer.agents AS a
               WHERE a.tenant = %3$L AND a.removed_at IS NULL AND a.is_active AND a.embedding IS NOT NULL
               ORDER BY distance LIMIT $2) AS n', vectors, dim, tiny_dancer.current_tenant());
BEGIN
    IF query IS NULL OR NOT EXISTS (SELECT FROM unnest(query) AS x WHERE x <> 0.0) THEN
        RAISE EXCEPTION USING ERRCODE = '22000',
            MESSAGE = 'The vector is NULL or all zeros; expected a direction to search in.';
    ELSIF wanted < 0 THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = format('limit is %s; expected at least 0.', wanted);
    ELSIF dim IS NULL THEN
        RETURN; -- nothing was ever registered
    END IF;
    -- Valid until this function returns, because it sets its search_path itself. An index that is searched often is in
    -- memory; by the usual price of a page the planner would prefer to look at thousands of agents one by one.
    PERFORM set_config('hnsw.ef_search', least(1000, greatest(200, 2 * wanted))::text, true),
            set_config('hnsw.iterative_scan', 'strict_order', true),
            set_config('hnsw.max_scan_tuples', '2147483647', true), -- never fewer than there are
            set_config('random_page_cost', '1', true);
    RETURN QUERY EXECUTE search USING query, wanted;
END;
$body$;
COMMENT ON FUNCTION tiny_dancer.nearest_agents(real[], integer) IS
    'The tenant''s active agents whose embeddings are nearest to a vector, nearest first, with their cosine similarity; '
    'at most limit. Uses the index of build_agent_index where that is worth it, and then finds almost all of the '
    'nearest; without it, exactly the nearest, by looking at every agent. Needs pgvector.';
