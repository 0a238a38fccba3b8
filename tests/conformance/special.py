"""Cases written by hand: ties, gaps in what is known, edges of every limit, changed agents, and every error.

In: nothing. Out: groups as JSON objects, without expectations; ``generate.py`` adds those.
"""

from __future__ import annotations

from typing import Any

E0: dict[str, Any] = {"0": 1.0}
FOUR_FIVE: dict[str, Any] = {"0": 0.8, "1": 0.6}


def route(name: str, request: Any, objective: str = "balanced", **constraints: Any) -> dict[str, Any]:
    """A case that routes a text, or a vector given as an object or a list."""
    is_vector = isinstance(request, list) or (isinstance(request, dict) and "text" not in request)
    case: dict[str, Any] = {"name": name, ("embedding" if is_vector else "request"): request, "objective": objective}
    if "sizes" in constraints:
        case["sizes"] = constraints.pop("sizes")
    return {**case, "constraints": constraints} if constraints else case


def call(case_name: str, what: str, /, **arguments: Any) -> dict[str, Any]:
    """A case that calls something else, and fails."""
    return {"name": case_name, "call": what, "arguments": arguments}


def agent(name: str, *capabilities: str, **fields: Any) -> dict[str, Any]:
    """An agent as ``ruvector_register_agent_full`` takes it."""
    return {"name": name, "capabilities": list(capabilities), **fields}


def group(name: str, agents: list[dict[str, Any]], cases: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A group of cases."""
    return {"name": name, "agents": agents, **more, "cases": cases}


WRITER = agent(
    "writer", "letters", "translation", input_cost_per_token=0.25e-6, output_cost_per_token=2e-6, avg_latency_ms=420,
    quality_score=0.72,
)  # fmt: skip
CODER = agent(
    "coder", "programming", "debugging", input_cost_per_token=3e-6, output_cost_per_token=15e-6, avg_latency_ms=2600,
    quality_score=0.93, expected_output_tokens=900,
)  # fmt: skip
CLERK = agent("clerk", "bookkeeping", "invoices", cost_per_request=0.004, avg_latency_ms=90, quality_score=0.81)
OBJECTIVES = ("balanced", "cost", "latency", "quality", "quality_per_dollar")


def groups() -> list[dict[str, Any]]:
    """All groups written by hand."""
    return [
        _worked_example(), _ties(), _unknowns(), _free(), _capabilities(), _exclusions(), _letter_case(), _edges(),
        _good_enough(), _floors(), _texts(), _sizes(), _units(), _nested(), _outcomes(), _judged(), _changed(),
        _nobody(), _only_inactive(), _bad_requests(), _bad_constraints(), _bad_agents(), _bad_calls(), _no_fit(),
    ]  # fmt: skip


def _worked_example() -> dict[str, Any]:
    large = agent(
        "large", "everything", avg_latency_ms=4000, quality_score=0.95, embedding={"0": 0.5, "1": 0.75**0.5},
        input_cost_per_token=3e-6, output_cost_per_token=15e-6, expected_output_tokens=400,
    )  # fmt: skip
    small = agent(
        "small", "chat", avg_latency_ms=800, quality_score=0.7, embedding={"0": 0.4, "1": 0.84**0.5},
        input_cost_per_token=0.15e-6, output_cost_per_token=0.6e-6, expected_output_tokens=300,
    )  # fmt: skip
    judged = [{"name": "large", "quality": q} for q in [1.0] * 7 + [0.5] * 3]
    cases = [route(objective, E0, objective) for objective in OBJECTIVES]
    cases += [route(f"{o} at three quarters", E0, o, good_enough=0.75) for o in ("cost", "latency")]
    cases += [route("another length of the vector", {"0": 40.0}, "quality")]
    return group("worked example", [large, small], cases, outcomes=judged)


def _ties() -> dict[str, Any]:
    same: dict[str, Any] = {
        "embedding": FOUR_FIVE, "cost_per_request": 0.01, "avg_latency_ms": 200, "quality_score": 0.8,
    }  # fmt: skip
    agents = [agent(name, **same) for name in ("delta", "beta", "gamma", "alpha")]
    agents.append(agent("closer", **{**same, "embedding": E0}))
    cases = [route(f"all alike: {o}", FOUR_FIVE, o, excluded_agents=["closer"]) for o in OBJECTIVES]
    cases += [route(f"the better match: {o}", E0, o) for o in ("cost", "latency", "quality", "quality_per_dollar")]
    cases += [route("the first is out", FOUR_FIVE, "cost", excluded_agents=["alpha", "beta", "closer"])]
    return group("ties", agents, cases)


def _unknowns() -> dict[str, Any]:
    agents = [
        agent("nothing known", embedding=E0),
        agent("no price", embedding=E0, avg_latency_ms=50, quality_score=0.9),
        agent("no latency", embedding=E0, cost_per_request=0.02, quality_score=0.85),
        agent("half a price", embedding=E0, input_cost_per_token=1e-6, avg_latency_ms=70, quality_score=0.95),
        agent("by the second, no latency", embedding=E0, cost_per_second=0.001, quality_score=0.7),
        agent("all known", embedding=E0, cost_per_request=0.05, avg_latency_ms=900, quality_score=0.75),
        agent("all known, dearer", embedding=E0, cost_per_request=0.3, avg_latency_ms=1900, quality_score=0.6),
    ]
    cases = [route(objective, E0, objective) for objective in OBJECTIVES]
    cases += [
        route("a cost limit drops unknown costs", E0, "quality", max_cost=1.0),
        route("a latency limit drops unknown latencies", E0, "quality", max_latency_ms=1e6),
        route("both", E0, "quality", max_cost=1.0, max_latency_ms=1e6),
        route("quality without a stated one", E0, "quality", min_quality=0.5, max_latency_ms=60.0),
        route("only unknown costs", E0, "cost", excluded_agents=["all known", "all known, dearer", "no latency"]),
        route(
            "only unknown latencies", E0, "latency", good_enough=0.0,
            excluded_agents=["all known", "all known, dearer", "no price", "half a price"],
        ),
    ]  # fmt: skip
    return group("unknowns", agents, cases)


def _free() -> dict[str, Any]:
    agents = [
        agent("free and weak", embedding=E0, cost_per_request=0, avg_latency_ms=3000, quality_score=0.45),
        agent("free by the month", embedding=E0, monthly_fixed_cost=900, avg_latency_ms=1500, quality_score=0.65),
        agent("paid", embedding=E0, cost_per_call=0.008, avg_latency_ms=300, quality_score=0.9),
        agent("worthless", embedding=E0, cost_per_request=0, avg_latency_ms=1, quality_score=0),
    ]
    cases = [route(objective, E0, objective) for objective in OBJECTIVES]
    cases += [route(f"{o} whatever the quality", E0, o, good_enough=0) for o in ("cost", "latency")]
    cases += [
        route("free within no budget at all", E0, "quality", budget_remaining=0),
        route("no cost allowed", E0, "quality", max_cost=0),
        route("the worthless one alone", E0, "quality", excluded_agents=["free and weak", "free by the month", "paid"]),
    ]
    return group("free", agents, cases)


def _capabilities() -> dict[str, Any]:
    agents = [
        agent("polyglot", "Translation", "FRENCH", "Straße", cost_per_request=0.02, quality_score=0.8),
        agent("lawyer", "law", "contracts", "Translation", cost_per_request=0.2, quality_score=0.9),
        agent("generalist", cost_per_request=0.001, quality_score=0.6, avg_latency_ms=100),
        agent("poet", "詩", "poésie", cost_per_request=0.01, quality_score=0.7),
        agent("repeats itself", "law", "law", "LAW", cost_per_request=0.05, quality_score=0.75),
    ]
    text = "Please put this clause of the lease into French."
    wanted = [
        ["translation"], ["TRANSLATION"], ["translation", "french"], ["STRASSE"], ["straße"], ["law"],
        ["LAW", "Contracts"], ["poésie"], ["POÉSIE", "詩"], [], ["law", "law"],
    ]  # fmt: skip
    cases = [route(f"required: {w}", text, "cost", required_capabilities=w) for w in wanted]
    cases += [
        route("required and no others", text, "quality", required_capabilities=["translation"], max_cost=0.1),
        route("nobody has it", text, "cost", required_capabilities=["astronomy"]),
        route("nobody has both", text, "cost", required_capabilities=["french", "law"]),
        route("nobody has it, and null", text, "cost", required_capabilities=["astronomy"], on_no_match="null"),
        route("a composed letter is another", text, "cost", required_capabilities=["poe\u0301sie"]),
    ]
    return group("capabilities", agents, cases)


def _exclusions() -> dict[str, Any]:
    agents = [WRITER, CODER, CLERK, agent("retired", "letters", cost_per_request=0, quality_score=1, is_active=False)]
    text = "Write a letter to the landlord about the broken heating."
    cases = [route(f"inactive though best: {o}", text, o) for o in OBJECTIVES]
    cases += [
        route("one out", text, "cost", excluded_agents=["clerk"]),
        route("two out", text, "cost", excluded_agents=["writer", "clerk"]),
        route("all out", text, "cost", excluded_agents=["writer", "coder", "clerk"]),
        route("all out, and null", text, "cost", excluded_agents=["writer", "coder", "clerk"], on_no_match="null"),
        route("a name nobody has", text, "cost", excluded_agents=["nobody", "Writer"]),
        route("twice the same", text, "latency", excluded_agents=["clerk", "clerk"]),
        route("nulls are no limits", text, "cost", max_cost=None, excluded_agents=None, required_capabilities=None),
    ]
    return group("exclusions", agents, cases)


def _letter_case() -> dict[str, Any]:
    prices = {"nova": 0.03, "Nova": 0.02, "NOVA": 0.01, "ǌ": 0.02, "émile": 0.02, "Émile": 0.03}
    agents = [agent(name, embedding=E0, cost_per_request=p, quality_score=0.8) for name, p in prices.items()]
    cases = [
        route("the cheapest spelling", E0, "cost"),
        route("without one spelling", E0, "cost", excluded_agents=["NOVA"]),
        route("equal costs fall to the name", E0, "cost", excluded_agents=["NOVA", "Nova"]),
        route("the last of them", E0, "cost", excluded_agents=["NOVA", "Nova", "nova", "émile", "ǌ"]),
        route("none is left", E0, "cost", excluded_agents=[a["name"] for a in agents]),
    ]
    return group("letter case", agents, cases)


def _edges() -> dict[str, Any]:
    agents = [
        agent("cheap", embedding=E0, cost_per_request=0.01, avg_latency_ms=100, quality_score=0.5),
        agent("middle", embedding=E0, cost_per_request=0.05, avg_latency_ms=400, quality_score=0.75),
        agent("dear", embedding=E0, cost_per_request=0.25, avg_latency_ms=1600, quality_score=1),
    ]
    cases = [
        route("the limit itself is allowed: cost", E0, "quality", max_cost=0.05),
        route("a little less is not: cost", E0, "quality", max_cost=0.0499),
        route("the limit itself is allowed: latency", E0, "quality", max_latency_ms=400.0),
        route("a little less is not: latency", E0, "quality", max_latency_ms=399.9),
        route("the limit itself is allowed: quality", E0, "cost", min_quality=0.75),
        route("a little more is not: quality", E0, "cost", min_quality=0.76),
        route("perfection", E0, "cost", min_quality=1),
        route("no quality at all will do", E0, "cost", min_quality=0, good_enough=0.4),
        route("the budget is the tighter", E0, "quality", max_cost=1.0, budget_remaining=0.05),
        route("the cost is the tighter", E0, "quality", max_cost=0.05, budget_remaining=1.0),
        route("two limits, two losers", E0, "balanced", max_cost=0.1, min_quality=0.6),
        route("limits that nobody meets together", E0, "balanced", max_cost=0.02, min_quality=0.9),
        route("the same, and null", E0, "balanced", max_cost=0.02, min_quality=0.9, on_no_match="null"),
        route("nothing is that quick", E0, "latency", max_latency_ms=1.5),
        route("nothing is that cheap", E0, "cost", budget_remaining=0.0001),
        route("huge limits", E0, "quality", max_cost=1e300, max_latency_ms=1e300),
        route("the opposite direction", {"0": -1.0}, "quality"),
        route("at a right angle", {"1": 1.0}, "balanced"),
        route("an objective in capitals", E0, " Quality "),
    ]
    return group("edges", agents, cases)


def _good_enough() -> dict[str, Any]:
    agents = [
        agent(f"q{int(100 * quality)}", embedding=E0, cost_per_request=price, avg_latency_ms=ms, quality_score=quality)
        for quality, price, ms in ((0.25, 0.001, 10), (0.5, 0.01, 40), (0.75, 0.1, 160), (1.0, 1.0, 640))
    ]
    shares = (0, 0.3, 0.5, 0.6, 0.75, 0.9, 1)
    cases = [route(f"cost at {g}", E0, "cost", good_enough=g) for g in shares]
    cases += [route(f"latency at {g}", E0, "latency", good_enough=g) for g in (0, 0.6, 1)]
    cases += [route(f"{o} by default", E0, o) for o in ("cost", "latency", "quality_per_dollar")]
    cases += [
        route("it says nothing to quality", E0, "quality", good_enough=0),
        route("it says nothing to balanced", E0, "balanced", good_enough=1),
        route("the best allowed sets the bar", E0, "cost", max_cost=0.5, good_enough=0.6),
        route("value for money at 1", E0, "quality_per_dollar", good_enough=1),
    ]
    return group("good enough", agents, cases)


def _floors() -> dict[str, Any]:
    """Below a ten-thousandth of a cent and a tenth of a millisecond nobody is preferred for being cheaper or faster."""
    levels = (("none", 0.7), ("nearly none", 0.62), ("some", 0.8), ("much", 0.5))
    latencies, prices = (0.0, 0.0, 40.0, 4000.0), (0.0, 1e-9, 0.0004, 0.04)
    agents = [
        *(agent(f"{level} of time", embedding=E0, cost_per_request=0.01, avg_latency_ms=ms, quality_score=q)
          for (level, q), ms in zip(levels, latencies, strict=True)),
        *(agent(f"{level} of money", embedding=E0, cost_per_request=usd, avg_latency_ms=100, quality_score=q)
          for (level, q), usd in zip(levels, prices, strict=True)),
    ]  # fmt: skip
    cases = []
    for what, other in (("time", "money"), ("money", "time")):
        others = [f"{level} of {other}" for level, _ in levels]
        for out in ("none", "nearly none"):
            cases.append(route(f"{what} without {out}", E0, "balanced", excluded_agents=[*others, f"{out} of {what}"]))
        cases += [
            route(f"{what}: {o}", E0, o, excluded_agents=others) for o in ("cost", "latency", "quality_per_dollar")
        ]
    return group("floors", agents, cases)


TEXTS = (
    ("English", "Find out why the nightly build has failed since Tuesday."),
    ("German", "Überprüfen Sie bitte die Rechnung über zwölf Fässer Öl."),
    ("Russian", "Переведите это письмо на немецкий язык, пожалуйста."),
    ("Chinese", "请帮我把这封信翻译成法语。"),
    ("Arabic", "ترجم هذه الرسالة إلى الإنجليزية من فضلك"),
    ("emoji", "🧾➕🧮 = ❓"),
    ("combining", "Cafe\u0301 re\u0301sume\u0301 nai\u0308ve"),
    ("quotes", "It's a \"test\": 'DROP TABLE agents;' -- $1 %s {} \\ $body$"),
    ("one letter", "x"),
    ("digits", "4815162342"),
    ("a line break", "Dear all,\nthe figures\tfor March are attached.\r\nRegards"),
    ("blanks around", "   the invoice of last month   "),
    ("right to left marks", "\u200fשלום\u200e, review this function"),
    ("JSON", '{"!": {"sqlstate": "22000", "message": "made up"}}'),
    ("five thousand characters", {"text": "Reconcile the ledger with the bank statement. ", "times": 109}),
    ("a long word", {"text": "debug", "times": 1000}),
    ("many lines", {"text": "\nfor i in range(10): print(i)", "times": 180}),
)


def _texts() -> dict[str, Any]:
    cases = [route(f"{n}: {o}", text, o) for n, text in TEXTS for o in ("balanced", "quality")]
    cases += [route(f"{n}: by cost within limits", t, "cost", max_cost=0.02, min_quality=0.6) for n, t in TEXTS[::3]]
    return group("texts", [WRITER, CODER, CLERK], cases)


def _sizes() -> dict[str, Any]:
    agents = [
        agent("per token", "reports", input_cost_per_token=1e-6, output_cost_per_token=4e-6, quality_score=0.8),
        agent("per call", "reports", cost_per_call=0.0015, quality_score=0.8),
        agent(
            "cached", "reports", input_cost_per_token=1e-6, output_cost_per_token=4e-6,
            cached_input_cost_per_token=1e-7, cost_per_request=0.0001, quality_score=0.8,
        ),
        agent("embedder", "vectors", agent_type="Embedding", cost_per_1k_tokens=0.0001, quality_score=0.3),
    ]  # fmt: skip
    text = "Summarise the attached report in three sentences."
    sizes = (
        {"input_tokens": 10}, {"input_tokens": 50000}, {"output_tokens": 10}, {"output_tokens": 20000},
        {"input_tokens": 200, "output_tokens": 100}, {"input_tokens": 0.5, "output_tokens": 0},
        {"input_tokens": 4000, "cached_input_tokens": 3900}, {"cached_input_tokens": 1000000},
    )  # fmt: skip
    cases = [route(f"sizes: {s}", text, "cost", sizes=s) for s in sizes]
    cases += [route("sizes and a limit", text, "quality", max_cost=0.001, sizes={"output_tokens": 20})]
    cases += [
        route("a limit that the size breaks", text, "cost", max_cost=0.001, sizes={"output_tokens": 9000}),
        route("from the text alone", text, "cost"),
        route("an embedding agent has no output", text, "cost", good_enough=0),
        route("a vector counts as a hundred tokens", E0, "cost", good_enough=0),
    ]  # fmt: skip
    return group("sizes", agents, cases)


def _units() -> dict[str, Any]:
    agents = [
        agent("by the second", "video", cost_per_second=0.02, avg_latency_ms=1500, quality_score=0.7),
        agent("by the thousand", "audio", cost_per_1k_tokens=0.05, avg_latency_ms=500, quality_score=0.8),
        agent("by the token", "speech", cost_per_token=0.00004, avg_latency_ms=700, quality_score=0.78),
        agent("all at once", "pictures", cost_per_request=0.001, cost_per_call=0.002, cost_per_token=1e-6,
              cost_per_second=0.001, avg_latency_ms=2500, quality_score=0.75),
        agent("one price over the other", "music", cost_per_token=1e-5, output_cost_per_token=2e-5,
              avg_latency_ms=300, quality_score=0.6),
        agent("cached alone", "noise", cached_input_cost_per_token=1e-9, avg_latency_ms=2, quality_score=0.65),
    ]  # fmt: skip
    text = "Describe what happens in the first minute of this recording."
    cases = [route(objective, text, objective) for objective in OBJECTIVES]
    cases += [
        route("within a cent", text, "quality", max_cost=0.01),
        route("at once", text, "cost", max_latency_ms=600.0),
    ]
    return group("units", agents, cases)


def _nested() -> dict[str, Any]:
    agents: list[dict[str, Any]] = [
        {"name": "nested", "type": "LLM", "capabilities": ["chat"],
         "cost_model": {"per_request": 0.01, "monthly_fixed_cost": 20},
         "performance": {"avg_latency_ms": 250, "quality_score": 0.8}},
        {"name": "aliased", "type": "my own kind", "capabilities": ["chat"], "per_1k_tokens": 0.02, "latency": 150,
         "quality": 0.7, "active": True},
        {"name": "described", "metadata": {"description": "Answers questions about tax returns and deductions."},
         "cost": {"cost_per_call": 0.05}, "quality_score": 0.9, "avg_latency_ms": 1200},
        {"name": "nulls", "capabilities": None, "metadata": None, "cost_per_request": None, "quality_score": None},
    ]  # fmt: skip
    text = "Which deductions may I claim for a home office?"
    cases = [route(objective, text, objective) for objective in OBJECTIVES]
    cases += [route("quality with a limit", text, "quality", max_cost=0.02)]
    return group("nested fields", agents, cases)


def _outcomes() -> dict[str, Any]:
    agents = [
        agent("promising", embedding=E0, cost_per_request=0.01, avg_latency_ms=100, quality_score=0.95),
        agent("proven", embedding=E0, cost_per_request=0.02, avg_latency_ms=5000, quality_score=0.6),
        agent("silent", embedding=E0, cost_per_request=0.03, avg_latency_ms=800),
        agent("by the second", embedding=E0, cost_per_second=0.01, quality_score=0.5),
    ]
    outcomes = [
        *({"name": "promising", "quality": q, "latency_ms": 900} for q in (0.1, 0.2, 0.0, 0.3, 0.15, 0.05, 0.1, 0.2)),
        *({"name": "promising", "success": False} for _ in range(7)),
        *({"name": "proven", "quality": q, "latency_ms": 300} for q in (1, 1, 0.95, 1, 0.9, 1, 1, 0.85, 1, 1)),
        {"name": "silent", "success": True, "latency_ms": 60},
        {"name": "silent", "success": False, "quality": 0.4},
        {"name": "by the second", "latency_ms": 2500.5},
        {"name": "by the second", "success": True},
    ]
    cases = [route(objective, E0, objective) for objective in OBJECTIVES]
    cases += [route(f"{o} whatever the quality", E0, o, good_enough=0) for o in ("cost", "latency")]
    cases += [route(f"confidence at {bar}", E0, "quality", min_quality=bar) for bar in (0.1, 0.5, 0.72, 0.8, 0.805)]
    others = ["proven", "silent", "by the second"]
    cases += [
        route(f"confidence of the disappointing one at {bar}", E0, "cost", min_quality=bar, excluded_agents=others)
        for bar in (0.05, 0.1, 0.17, 0.2, 0.3)
    ]
    cases += [
        route("the latency that was seen", E0, "quality", max_latency_ms=500.0),
        route("the disappointing one alone", E0, "quality", excluded_agents=others),
        route("without a stated quality", E0, "quality", excluded_agents=["proven", "promising", "by the second"]),
        route("seconds that were measured", E0, "cost", excluded_agents=["proven", "promising", "silent"]),
        route("nobody reaches it", E0, "cost", min_quality=0.95),
    ]
    return group("outcomes", agents, cases, outcomes=outcomes)


def _judged() -> dict[str, Any]:
    agents = [
        agent("brief", "answers", input_cost_per_token=1e-6, output_cost_per_token=5e-6, quality_score=0.7),
        agent("verbose", "answers", input_cost_per_token=1e-6, output_cost_per_token=4e-6, quality_score=0.7),
    ]
    qualities = (0.6, 0.9, 0.75, 0.8, 0.7, 0.65, 0.8, 0.72, 0.9, 0.66, 0.71, 0.78)
    outcomes: list[dict[str, Any]] = [
        {"name": ("brief", "verbose")[i % 2], "routed": True, "quality": q, "output_tokens": (80, 1500)[i % 2],
         "cost_usd": 0.003, "input_tokens": 12, "latency_ms": (400, 3100)[i % 2]}
        for i, q in enumerate(qualities)
    ]  # fmt: skip
    outcomes.append({"name": "verbose", "routed": True, "success": False})
    text = "How many bridges cross the Danube in Vienna?"
    cases = [route(objective, text, objective) for objective in OBJECTIVES]
    cases += [
        route("the verbose one alone", text, "cost", excluded_agents=["brief"]),
        route("a limit between the two", text, "cost", max_cost=0.003),
        route("a bar", text, "cost", min_quality=0.7),
        route("told how long", text, "cost", sizes={"output_tokens": 100}),
    ]
    return group("judged decisions", agents, cases, outcomes=outcomes)


def _changed() -> dict[str, Any]:
    agents = [
        agent("before", embedding=E0, cost_per_request=0.01, avg_latency_ms=100, quality_score=0.9),
        agent("removed", embedding=E0, cost_per_request=0.0001, avg_latency_ms=1, quality_score=1),
        agent("asleep", embedding=E0, cost_per_request=0.0002, avg_latency_ms=2, quality_score=1),
        agent("awake", embedding=E0, cost_per_request=0.03, avg_latency_ms=50, quality_score=0.8, is_active=False),
        agent("moved", embedding=E0, cost_per_request=0.02, avg_latency_ms=200, quality_score=0.85),
    ]
    changes = [
        {"call": "remove", "name": "removed"},
        {"call": "set_active", "name": "asleep", "is_active": False},
        {"call": "set_active", "name": "awake", "is_active": True},
        {"call": "update", "name": "before", "changes": {"quality_score": 0.4, "cost_per_call": 0.5}},
        {"call": "update", "name": "moved", "changes": {"embedding": {"1": 1.0}, "avg_latency_ms": None}},
    ]
    cases = [route(f"{o} after the changes", E0, o) for o in OBJECTIVES]
    cases += [
        route("where it moved to", {"1": 1.0}, "quality"),
        route("the removed one is no exclusion", E0, "cost", excluded_agents=["removed"], max_cost=0.0001),
        route("a latency that became unknown", {"1": 1.0}, "quality", max_latency_ms=1000.0),
        route("prices add up", E0, "quality", excluded_agents=["awake", "moved"]),
    ]
    outcomes = [{"name": "before", "quality": 1.0, "latency_ms": 40}]
    return group("changed agents", agents, cases, outcomes=outcomes, changes=changes)


def _nobody() -> dict[str, Any]:
    return group("nobody", [], [
        route("no agents: text", "Is anybody there?"),
        route("no agents: vector", E0, "cost"),
        route("no agents: a limit changes nothing", "Is anybody there?", "cost", on_no_match="null"),
        route("no agents, but the objective comes first", "Is anybody there?", "speed"),
        route("no agents, but the text comes first", ""),
        call("no agents: get", "get", name="anybody"),
        call("no agents: remove", "remove", name="anybody"),
    ])  # fmt: skip


def _only_inactive() -> dict[str, Any]:
    agents = [agent("off", "chat", is_active=False), agent("out", "chat", is_active=False, quality_score=1)]
    return group("only inactive", agents, [
        route("all are off", "Hello there."),
        route("all are off: vector", E0, "quality"),
        route("all are off, and null", "Hello there.", "cost", on_no_match="null"),
        route("one reason each", "Hello there.", "cost", excluded_agents=["out"], required_capabilities=["law"]),
    ])  # fmt: skip


def _bad_requests() -> dict[str, Any]:
    text = "A request that nothing is wrong with."
    full: list[Any] = [0.0] * 384
    nested: list[Any] = [[1.0, 2.0], [3.0, 4.0]]
    return group("bad requests", [WRITER, CODER, CLERK], [
        route("empty text", ""),
        route("blanks only", " \t\n "),
        route("other blanks only", "\u00a0\u2003"),
        route("too long a text", {"text": "long ", "times": 80001}),
        route("no numbers", []),
        route("one number", [1.0]),
        route("too few numbers", [0.1] * 383),
        route("too many numbers", [0.1] * 385),
        route("all zeros", full),
        route("all zeros: objective", {"0": 0.0}, "cost"),
        route("not a number", {"3": "NaN", "5": 1.0}),
        route("infinite", {"7": "Infinity"}),
        route("minus infinite", {"0": 1.0, "383": "-Infinity"}),
        route("a table of numbers", nested),
        route("unknown objective", text, "speed"),
        route("empty objective", text, ""),
        route("an objective's beginning", text, "qual"),
        route("an objective with another dash", text, "quality-per-dollar"),
        route("an objective that is SQL", text, "cost'; DROP TABLE agents; --"),
        route("unknown objective: vector", E0, "cheapest"),
        route("the objective comes before the text", "", "speed"),
        route("a negative size", text, sizes={"input_tokens": -1}),
        route("an absurd size", text, sizes={"output_tokens": 1e15}),
    ])  # fmt: skip


def _bad_constraints() -> dict[str, Any]:
    text = "A request that nothing is wrong with."
    bad: tuple[tuple[str, dict[str, Any]], ...] = (
        ("an unknown key", {"max_price": 1}),
        ("a misspelt key", {"max_csot": 0.5}),
        ("a key in capitals", {"MAX_COST": 0.5}),
        ("two unknown keys", {"speed": 1, "colour": "red"}),
        ("a negative cost", {"max_cost": -0.01}),
        ("a negative latency", {"max_latency_ms": -5}),
        ("a negative budget", {"budget_remaining": -1.5}),
        ("a quality above 1", {"min_quality": 1.5}),
        ("a quality below 0", {"min_quality": -0.1}),
        ("a share above 1", {"good_enough": 7}),
        ("a share below 0", {"good_enough": -0.5}),
        ("a cost in words", {"max_cost": "cheap"}),
        ("a cost as text", {"max_cost": "0.5"}),
        ("a cost that is true", {"max_cost": True}),
        ("a cost in a list", {"max_cost": [0.5]}),
        ("capabilities as a text", {"required_capabilities": "law"}),
        ("a capability that is a number", {"required_capabilities": ["law", 5]}),
        ("an empty capability", {"required_capabilities": [""]}),
        ("agents as an object", {"excluded_agents": {"a": 1}}),
        ("agents as a number", {"excluded_agents": 3}),
        ("an agent with blanks around", {"excluded_agents": [" clerk"]}),
        ("an answer there is not", {"on_no_match": "maybe"}),
        ("two mistakes, the key first", {"max_cost": -1, "speed": 2}),
    )
    both = (("text", text), ("vector", E0))
    cases = [route(f"{name}: {kind}", r, "cost", **c) for name, c in bad for kind, r in both]
    return group("bad constraints", [WRITER, CODER, CLERK], cases)


def _bad_agents() -> dict[str, Any]:
    def config(**fields: Any) -> dict[str, Any]:
        return {"name": "new one", **fields}

    bad: tuple[tuple[str, Any], ...] = (
        ("a name that is taken", {"name": "writer"}),
        ("no name", {"capabilities": ["law"]}),
        ("an empty name", config(name="")),
        ("a blank name", config(name="   ")),
        ("blanks around the name", config(name=" new")),
        ("a control character in the name", config(name="new\u0007one")),
        ("a line break in the name", config(name="new\none")),
        ("a name of 201 characters", config(name="n" * 201)),
        ("a name that is a number", config(name=5)),
        ("an unknown field", config(qualty=0.5)),
        ("an unknown price", config(cost_model={"per_word": 0.5})),
        ("a negative price", config(cost_per_request=-0.01)),
        ("an absurd price", config(cost_per_token=2000000)),
        ("two prices for tokens", config(cost_per_token=0.1, cost_per_1k_tokens=0.1)),
        ("a price in words", config(cost_per_request="free")),
        ("a quality above 1", config(quality_score=1.01)),
        ("a quality below 0", config(quality_score=-0.01)),
        ("a negative latency", config(avg_latency_ms=-1)),
        ("an absurd latency", config(avg_latency_ms=1e10)),
        ("capabilities as a text", config(capabilities="law")),
        ("an empty capability", config(capabilities=["law", ""])),
        ("active as a text", config(is_active="yes")),
        ("active as a number", config(is_active=1)),
        ("metadata as a list", config(metadata=[1, 2])),
        ("metadata too large", config(metadata={"text": "m" * 66000})),
        ("an empty type", config(agent_type="")),
        ("too short an embedding", config(embedding=[0.5, 0.5])),
        ("an embedding of zeros", config(embedding={"0": 0.0})),
        ("an embedding of words", config(embedding=["a", "b"])),
        ("no object", ["writer"]),
    )
    cases = [call(name, "register", config=given) for name, given in bad]
    cases += [route("and nothing was registered", "Write to the tax office.", "quality", good_enough=0)]
    return group("bad agents", [WRITER, CODER, CLERK], cases)


def _bad_calls() -> dict[str, Any]:
    return group("bad calls", [WRITER, CODER, CLERK], [
        call("update of an unknown agent", "update", name="wirter", changes={"quality_score": 0.5}),
        call("update with an unknown field", "update", name="writer", changes={"qualty": 0.5}),
        call("update with a bad value", "update", name="writer", changes={"quality_score": 2}),
        call("update of the name", "update", name="writer", changes={"name": "author"}),
        call("update to two prices for tokens", "update", name="writer",
             changes={"cost_per_token": 1e-6, "cost_per_1k_tokens": 1e-3}),
        call("update with a short embedding", "update", name="writer", changes={"embedding": [1.0]}),
        call("removal of an unknown agent", "remove", name="Writer"),
        call("an unknown agent", "get", name="nobody"),
        call("switching an unknown agent", "set_active", name="codre", is_active=True),
        call("metrics of an unknown agent", "metrics", name="clark", quality=0.5),
        call("metrics with a quality above 1", "metrics", name="clerk", quality=1.5),
        call("metrics with a negative quality", "metrics", name="clerk", quality=-0.5),
        call("metrics with a negative latency", "metrics", name="clerk", latency_ms=-3),
        call("metrics with an absurd latency", "metrics", name="clerk", latency_ms=1e10),
        call("feedback on an unknown decision", "feedback", decision_id="0123456789abcdef0123456789abcdef"),
        call("feedback on no decision", "feedback", decision_id=""),
        call("feedback that is SQL", "feedback", decision_id="' OR 1=1 --", quality=0.5),
        call("an empty text to embed", "embed", text=""),
        call("a blank text to embed", "embed", text=" \n"),
        route("and nothing has changed", "Write to the tax office.", "quality"),
    ])  # fmt: skip


def _no_fit() -> dict[str, Any]:
    agents = [WRITER, CODER, CLERK, agent("mystery", "poetry"), agent("off", "letters", is_active=False)]
    text = "Check the invoices of March against the ledger."
    limits: tuple[tuple[str, dict[str, Any]], ...] = (
        ("too cheap", {"max_cost": 0.0000001}),
        ("no money", {"budget_remaining": 0.0}),
        ("too quick", {"max_latency_ms": 0.5}),
        ("too good", {"min_quality": 0.999}),
        ("everything at once",
         {"max_cost": 1e-9, "budget_remaining": 1e-10, "max_latency_ms": 0.25, "min_quality": 0.995}),
        ("a reason each", {"required_capabilities": ["Letters"], "excluded_agents": ["writer"], "max_cost": 0.5}),
        ("large amounts", {"max_latency_ms": 80.5, "max_cost": 123456.789, "min_quality": 0.5}),
    )  # fmt: skip
    cases = [
        route(f"{name}: {kind}", r, "balanced", **c)
        for name, c in limits
        for kind, r in (("text", text), ("vector", {"2": 0.6, "9": -0.8}))
    ]
    return group("none fits", agents, cases)
