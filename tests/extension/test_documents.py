"""What the documents print, as they print it."""

from __future__ import annotations

import pytest

REGISTRATION = """
SELECT ruvector_register_agent(
    name := 'gpt-4',
    agent_type := 'llm',
    capabilities := ARRAY['reasoning', 'code', 'analysis', 'creative'],
    cost_per_1k_tokens := 0.03,
    avg_latency_ms := 2500,
    quality_score := 0.95,
    metadata := '{"provider": "openai", "context_window": 128000}'
);

SELECT ruvector_register_agent(
    name := 'claude-3-haiku',
    agent_type := 'llm',
    capabilities := ARRAY['fast-response', 'simple-tasks', 'classification'],
    cost_per_1k_tokens := 0.00025,
    avg_latency_ms := 400,
    quality_score := 0.80,
    metadata := '{"provider": "anthropic", "context_window": 200000}'
);

SELECT ruvector_register_agent(
    name := 'code-specialist',
    agent_type := 'tool',
    capabilities := ARRAY['code-execution', 'debugging', 'testing'],
    cost_per_call := 0.001,
    avg_latency_ms := 100,
    quality_score := 0.90
)
"""


@pytest.fixture
def plan(db):
    """The agents of the second document."""
    for statement in REGISTRATION.split(";"):
        assert db.one(statement) is True
    return db


@pytest.fixture
def requests(agents):
    """The table that the first document routes from, with 1,200 requests."""
    agents.rows("CREATE TABLE requests (id int PRIMARY KEY, embedding float4[], processed boolean DEFAULT false)")
    agents.rows(
        """INSERT INTO requests SELECT i, ruvector_embed('Write a function that sorts list number ' || i)
           FROM generate_series(1, 1200) AS i"""
    )
    return agents


def test_quick_start(db):
    db.rows("CREATE TABLE requests AS SELECT 1 AS id, ruvector_embed('Write a sorting function') AS embedding")
    assert db.one("SELECT ruvector_register_agent('gpt-4', 'llm', ARRAY['coding'], 0.03, 500.0, 0.95)") is True
    assert db.one("SELECT ruvector_register_agent('gpt-3.5', 'llm', ARRAY['general'], 0.002, 150.0, 0.75)") is True
    decision = db.one(
        """
        SELECT ruvector_route(
            (SELECT embedding FROM requests WHERE id = 1),
            'balanced',
            NULL
        );
        """
    )
    assert decision["agent_name"] in {"gpt-4", "gpt-3.5"}
    assert {"confidence", "estimated_cost", "estimated_latency_ms", "expected_quality", "similarity_score", "reasoning",
            "alternatives"} <= decision.keys()  # fmt: skip
    assert db.one("SELECT ruvector_update_agent_metrics('gpt-4', 450.0, true, 0.92)") is True
    rows = {row["name"]: row for row in db.dicts("SELECT * FROM ruvector_list_agents()")}
    assert rows["gpt-4"]["total_requests"] == 1
    assert rows["gpt-4"]["avg_latency_ms"] == 450.0
    assert rows["gpt-4"]["quality_score"] == 0.92
    assert rows["gpt-3.5"]["p95_latency_ms"] is None
    stats = db.one("SELECT ruvector_routing_stats()")
    assert (stats["total_agents"], stats["total_decisions"], stats["total_outcomes"]) == (2, 1, 1)


def test_basic_routing(requests):
    cheap = requests.one("SELECT ruvector_route(embedding, 'cost', NULL) FROM requests WHERE id = 1")
    assert cheap["agent_name"] == "gpt-3.5-turbo"
    error = requests.fails(
        """SELECT ruvector_route(embedding, 'quality', '{"max_cost": 0.01, "min_quality": 0.8}'::jsonb)
           FROM requests WHERE id = 1"""
    )
    assert error.sqlstate == "P0002"
    assert error.diag.message_detail.splitlines()[0].startswith("gpt-3.5-turbo: ")
    good = requests.one(
        """SELECT ruvector_route(embedding, 'quality', '{"max_cost": 0.10, "min_quality": 0.8}'::jsonb)
           FROM requests WHERE id = 1"""
    )
    assert good["agent_name"] == "gpt-4"


SMART_ROUTE = """
CREATE FUNCTION smart_route(
    embedding float4[],
    task_type text,
    priority text
) RETURNS jsonb AS $$
    SELECT ruvector_route(
        embedding::float4[],
        CASE priority
            WHEN 'critical' THEN 'quality'
            WHEN 'low' THEN 'cost'
            ELSE 'balanced'
        END,
        jsonb_build_object(
            'required_capabilities',
            CASE task_type
                WHEN 'coding' THEN ARRAY['coding']
                WHEN 'writing' THEN ARRAY['writing']
                ELSE ARRAY[]::text[]
            END
        )
    );
$$ LANGUAGE sql;
"""
SMART_ROUTE_PLPGSQL = SMART_ROUTE.replace("AS $$\n    SELECT", "AS $$ BEGIN\n    RETURN (SELECT").replace(
    ");\n$$ LANGUAGE sql", ")); END;\n$$ LANGUAGE plpgsql"
)


@pytest.mark.parametrize("definition", [SMART_ROUTE, SMART_ROUTE_PLPGSQL], ids=["sql", "plpgsql"])
def test_smart_route(requests, definition):
    if requests.rows("SELECT 1 FROM pg_extension WHERE extname = 'vector'"):
        definition = definition.replace("embedding float4[],", "embedding vector,")
        requests.rows("ALTER TABLE requests ALTER embedding TYPE vector(384)")
    requests.rows(definition)
    route = "SELECT smart_route(embedding, %s, %s) FROM requests WHERE id = 1"
    assert requests.one(route, "coding", "critical")["agent_name"] == "gpt-4"
    assert requests.one(route, "anything", "low")["agent_name"] == "gpt-3.5-turbo"
    assert requests.one(route, "coding", "low")["agent_name"] == "gpt-4"
    assert requests.fails(route, "writing", "low").sqlstate == "P0002"


def test_batch_of_a_thousand_rows(requests):
    rows = requests.rows(
        """
        SELECT
            r.id,
            (ruvector_route(r.embedding, 'balanced', NULL))::jsonb->>'agent_name' AS agent
        FROM requests r
        WHERE processed = false
        LIMIT 1000;
        """
    )
    assert len(rows) == 1000
    assert {agent for _, agent in rows} <= {"gpt-4", "gpt-3.5-turbo"}
    # LIMIT stopped the routing, too.
    assert requests.one("SELECT ruvector_routing_stats()")["total_decisions"] == 1000


def test_monitoring_and_costs(agents):
    agents.rows("SELECT ruvector_update_agent_metrics('gpt-4', 1500.0, i > 3, 0.875) FROM generate_series(1, 10) AS i")
    watched = agents.rows(
        """
        SELECT name, success_rate, avg_latency_ms, quality_score
        FROM ruvector_list_agents()
        WHERE success_rate < 0.90 OR avg_latency_ms > 1000;
        """
    )
    assert watched == [("gpt-4", 0.7, 1500.0, 0.875)]
    agents.rows("CREATE TABLE request_completions (completed_at timestamptz, agent_name text, cost float8)")
    agents.rows("INSERT INTO request_completions SELECT '2026-01-02', 'gpt-4', 0.03 FROM generate_series(1, 4)")
    assert agents.rows(
        """
        SELECT
            DATE_TRUNC('day', completed_at) AS day,
            agent_name,
            SUM(cost) AS total_cost,
            COUNT(*) AS requests
        FROM request_completions
        GROUP BY day, agent_name;
        """
    )[0][1:] == ("gpt-4", 0.12, 4)


def test_plan_lists_its_agents(plan):
    rows = {row["name"]: row for row in plan.dicts("SELECT * FROM ruvector_list_agents();")}
    assert rows["gpt-4"]["metadata"] == {"provider": "openai", "context_window": 128000}
    assert rows["gpt-4"]["cost_model"] == {"cost_per_1k_tokens": 0.03}
    assert rows["code-specialist"]["agent_type"] == "tool"
    assert rows["code-specialist"]["cost_model"] == {"cost_per_call": 0.001}


def test_plan_routes_by_text(plan):
    (row,) = plan.dicts(
        """
        SELECT * FROM ruvector_route(
            request := 'Write a Python function to calculate Fibonacci numbers',
            optimize_for := 'cost'  -- or 'latency', 'quality', 'balanced'
        );
        """
    )
    assert list(row)[:4] == ["agent_name", "confidence", "estimated_cost", "estimated_latency"]
    assert row["agent_name"] == "claude-3-haiku"
    assert row["estimated_latency"] == "400ms"
    (row,) = plan.dicts(
        """
        SELECT * FROM ruvector_route(
            request := 'Analyze this complex legal document',
            required_capabilities := ARRAY['reasoning', 'analysis'],
            max_cost := 0.10,
            max_latency_ms := 5000,
            min_quality := 0.90
        );
        """
    )
    assert row["agent_name"] == "gpt-4"
    (row,) = plan.dicts(
        """
        SELECT * FROM ruvector_route(
            request := 'Summarize this article',
            budget_remaining := 10.00,
            optimize_for := 'quality_per_dollar'
        );
        """
    )
    assert row["agent_name"] == "claude-3-haiku"


def test_plan_routes_in_batch(plan):
    batch = """
        SELECT * FROM ruvector_batch_route(
            requests := ARRAY[
                'Simple question 1',
                'Complex analysis task',
                'Code generation request'
            ],
            optimize_for := 'cost'
        );
        """
    rows = plan.dicts(batch)
    assert [row["request_number"] for row in rows] == [1, 2, 3]
    assert {row["agent_name"] for row in rows} == {"claude-3-haiku"}
    together = plan.dicts(batch.replace("'cost'", "'total_cost'"))
    assert [row["objective"] for row in together] == ["total_cost"] * 3


ROUTES = """
SELECT ruvector_create_route(
    name := 'customer_support',
    description := 'Handle customer support inquiries, complaints, and feedback',
    embedding := ruvector_embed('Customer support and help requests'),
    target_agent := 'support-agent',
    priority := 1
);

SELECT ruvector_create_route(
    name := 'technical_docs',
    description := 'Answer questions about technical documentation and APIs',
    embedding := ruvector_embed('Technical documentation and API reference'),
    target_agent := 'docs-agent',
    priority := 2
)
"""
MATCH = """
SELECT * FROM ruvector_semantic_route(
    query := 'How do I reset my password?',
    top_k := 3
);
"""


def test_plan_creates_routes_only_to_agents_that_there_are(plan):
    error = plan.fails(ROUTES.split(";")[0])
    assert (error.sqlstate, "'support-agent', which is not registered" in error.diag.message_primary) == ("42704", True)
    assert plan.rows("SELECT * FROM ruvector_list_routes()") == []


@pytest.fixture
def routes(plan):
    """The routes of the second document, and the agents that they name."""
    for name in ("support-agent", "docs-agent"):
        assert plan.one("SELECT ruvector_register_agent(name := %s, agent_type := 'human')", name) is True
    for statement in ROUTES.split(";"):
        assert plan.one(statement) is True
    return plan


def test_plan_matches_routes(routes):
    rows = routes.dicts(MATCH)
    assert list(rows[0]) == ["route_name", "similarity", "target_agent", "confidence"]
    assert [(row["route_name"], row["target_agent"]) for row in rows] == [("customer_support", "support-agent")]
    cosine = """SELECT sum(a * b) FROM unnest(ruvector_embed('How do I reset my password?'),
                                              ruvector_embed('Customer support and help requests')) AS v (a, b)"""
    assert rows[0]["similarity"] == pytest.approx(routes.one(cosine), abs=1e-6)
    assert 0.0 < rows[0]["confidence"] < 1.0
    kept = {row["name"]: (row["target_agent"], row["priority"]) for row in routes.dicts(
        "SELECT * FROM ruvector_list_routes()")}  # fmt: skip
    assert kept == {"customer_support": ("support-agent", 1), "technical_docs": ("docs-agent", 2)}


def test_the_phase_on_routes_by_position(plan):
    plan.rows("SELECT ruvector_register_agent('support-agent', 'human', ARRAY['support'], 0.0, 100.0, 0.9)")
    created = """SELECT ruvector_create_route('customer_support', 'Customer support and help requests', 'support-agent',
                                              priority := 0, embedding := NULL)"""
    assert plan.one(created) is True
    (row,) = plan.dicts("SELECT * FROM ruvector_semantic_route('Customer support and help requests')")
    assert row["similarity"] == pytest.approx(1.0, abs=1e-6)


def test_plan_routes_to_several_agents(plan):
    team = """
        SELECT * FROM ruvector_route_multi(
            request := 'Build and deploy a web application',
            num_agents := 3,
            strategy := 'pipeline'  -- or 'parallel', 'ensemble'
        );
        """
    for strategy in ("pipeline", "parallel", "ensemble"):
        rows = plan.dicts(team.replace("'pipeline'  --", f"'{strategy}'  --"))
        assert [row["position"] for row in rows] == list(range(1, len(rows) + 1))
        assert {row["agent_name"] for row in rows} <= {"gpt-4", "claude-3-haiku", "code-specialist"}
        assert {row["strategy_used"] for row in rows} == {strategy}
        assert len(rows) == 3 or strategy == "ensemble"


def test_plan_analyses_costs(plan):
    analytics = """
        SELECT * FROM ruvector_routing_analytics(
            time_range := '7 days',
            group_by := 'agent'
        );
        """
    assert plan.rows(analytics) == []
    for number, (cost, latency_ms, success) in enumerate([(0.03, 2500.0, True), (0.05, 3500.0, False)]):
        decided = plan.one("SELECT decision_id FROM ruvector_route(%s, 'quality')", f"Simple question {number}")
        done = "SELECT ruvector_feedback(%s, success := %s, cost := %s, latency_ms := %s)"
        assert plan.one(done, decided, success, cost, latency_ms) is True
    plan.rows("SELECT ruvector_update_agent_metrics('claude-3-haiku', 400.0, true)")
    rows = plan.dicts(analytics)
    assert list(rows[0])[:5] == ["agent", "total_requests", "total_cost", "avg_latency_ms", "success_rate"]
    assert [list(row.values())[:5] for row in rows] == [
        ["gpt-4", 2, pytest.approx(0.08), pytest.approx(3000.0), 0.5],
        ["claude-3-haiku", 1, None, pytest.approx(400.0), 1.0],
    ]
    assert plan.dicts("SELECT * FROM ruvector_routing_analytics()") == rows


def test_plan_optimizes_a_budget(plan):
    budget = """
        SELECT * FROM ruvector_optimize_budget(
            monthly_budget := 100.00,
            quality_threshold := 0.85,
            latency_threshold_ms := 2000
        );
        """
    found = plan.one(budget)
    assert {"allocations", "total_budget", "period_days"} <= found.keys()
    assert (found["total_budget"], found["period_days"]) == (100.0, 30)
    # The only one of the three that is good and quick enough.
    assert found["allocations"] == pytest.approx({"code-specialist": 100.0})
    defaults = plan.one("SELECT ruvector_optimize_budget(100.00)")
    assert defaults == plan.one("SELECT ruvector_optimize_budget(100.00, 0.8, 5000.0)")
    assert defaults["allocations"].keys() == {"gpt-4", "claude-3-haiku", "code-specialist"}


def test_plan_classifies_requests(plan):
    plan.rows("CREATE TABLE pending_requests (request_id int, content text)")
    plan.rows(
        """INSERT INTO pending_requests VALUES (1, 'Translate this letter into French.'),
           (2, 'Write a Python function that merges two sorted lists.')"""
    )
    rows = plan.rows(
        """
        SELECT request_id, ruvector_classify_request(content) AS classification
        FROM pending_requests;
        """
    )
    assert [(number, found["top_category"]) for number, found in rows] == [(1, "translation"), (2, "coding")]
    for _, found in rows:
        names, shares = zip(*found["classifications"], strict=True)
        assert (names[0], shares[0]) == (found["top_category"], found["confidence"])
        assert list(shares) == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1.0)


def test_embedding_for_a_route(db):
    vector = db.one("SELECT ruvector_embed('Customer support and help requests')")
    assert len(vector) == 384
    assert sum(x * x for x in vector) == pytest.approx(1.0, abs=1e-5)


def test_coalesce_views_lateral_and_assignment(requests):
    requests.rows(
        """CREATE VIEW routed AS
           SELECT id, COALESCE(ruvector_route(embedding, 'cost',
               '{"required_capabilities": ["law"], "on_no_match": "null"}')->>'agent_name', 'nobody') AS agent
           FROM requests"""
    )
    assert requests.rows("SELECT DISTINCT agent FROM routed WHERE id <= 10") == [("nobody",)]
    assert requests.rows(
        """SELECT count(*), min(d.agent_name) FROM (SELECT * FROM requests LIMIT 20) AS r
           CROSS JOIN LATERAL ruvector_route('Sort list ' || r.id, 'latency') AS d"""
    ) == [(20, "gpt-3.5-turbo")]
    arms = requests.rows(
        """SELECT arm, count(*) FROM (
               SELECT CASE WHEN abs(hashint4(id)) % 2 = 0 THEN 'cost' ELSE 'quality' END AS arm, embedding
               FROM requests LIMIT 100) AS r,
           LATERAL (SELECT ruvector_route(r.embedding, r.arm)->>'agent_name' AS agent) AS d
           WHERE agent = CASE arm WHEN 'cost' THEN 'gpt-3.5-turbo' ELSE 'gpt-4' END GROUP BY arm ORDER BY arm"""
    )
    assert [arm for arm, _ in arms] == ["cost", "quality"]
    assert sum(count for _, count in arms) == 100


def test_prepared_statements(requests):
    requests.rows(
        """PREPARE routing(int, text) AS
           SELECT ruvector_route(embedding, $2, NULL)->>'agent_name' FROM requests WHERE id = $1"""
    )
    # From the sixth execution on the plan is a generic one.
    for number in range(1, 9):
        assert requests.one(f"EXECUTE routing({number}, 'cost')") == "gpt-3.5-turbo"
    requests.rows("SELECT ruvector_set_agent_active('gpt-3.5-turbo', false)")
    assert requests.one("EXECUTE routing(1, 'cost')") == "gpt-4"


def test_parallel_plans_stay_right(requests):
    for setting in ("parallel_setup_cost = 0", "parallel_tuple_cost = 0", "min_parallel_table_scan_size = 0",
                    "max_parallel_workers_per_gather = 2"):  # fmt: skip
        requests.rows(f"SET {setting}")
    requests.rows("ANALYZE requests")
    assert "Gather" in str(requests.rows("EXPLAIN SELECT count(*) FROM requests"))
    query = "SELECT count(ruvector_route(embedding, 'cost')) FROM requests WHERE id <= 50"
    assert "Gather" not in str(requests.rows(f"EXPLAIN {query}"))
    assert requests.one(query) == 50
    assert requests.one("SELECT ruvector_routing_stats()")["total_decisions"] == 50  # EXPLAIN routed nothing


def test_explain_analyze_routes(requests):
    lines = str(requests.rows("EXPLAIN ANALYZE SELECT ruvector_route(embedding) FROM requests LIMIT 3"))
    assert "actual time" in lines
