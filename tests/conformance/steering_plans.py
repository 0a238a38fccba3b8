"""Steering scenes on plans: several agents for a request, batches under one account, a month's budget.

In: nothing. Out: scenes as JSON objects, without expectations; ``generate_steering.py`` adds those.
"""

from __future__ import annotations

import random
from typing import Any

from tests.conformance.steering_routes import DRAWN, case, scene, step

TEXTS = (
    "Plan three days in Lisbon for a family with small children.", "Why does this query scan the whole table?",
    "Prove that the square root of two is irrational.", "Draft a friendly reminder about an unpaid invoice.",
    "Is a verbal agreement to rent a flat binding?", "Translate the menu into Dutch.",
    "Explain the causes of the war to a twelve-year-old.", "Which herbs grow on a balcony that faces north?",
)  # fmt: skip
LONG = "Compare these two clauses of the contract and say which of them protects the tenant better, and why."


def agent(name: str, *capabilities: str, **config: Any) -> dict[str, Any]:
    """A step that registers an agent."""
    return step("register", config={"name": name, "capabilities": list(capabilities), **config})


def scenes() -> list[dict[str, Any]]:
    """All of them."""
    return [
        _pipelines(), _bad_teams(), _side_by_side(), _votes(), _chains(), _money_for_teams(), _strange_teams(),
        _batches("batches one", 3, 4, 11), _batches("batches two", 4, 5, 12), _batches("batches three", 5, 4, 10),
        _batch_edges(), _bad_batches(), _months(), _months_of_traffic(), _bad_months(),
    ]  # fmt: skip


def _firm() -> list[dict[str, Any]]:
    return [
        agent("large", "reasoning", "planning", input_cost_per_token=5e-6, output_cost_per_token=2.5e-5,
              avg_latency_ms=2400, quality_score=0.94, metadata={"provider": "A"}),
        agent("medium", "reasoning", "writing", input_cost_per_token=1e-6, output_cost_per_token=4e-6,
              avg_latency_ms=900, quality_score=0.86, metadata={"provider": "A"}),
        agent("coder", "programming", "testing", cost_per_request=0.004, avg_latency_ms=1100, quality_score=0.88,
              metadata={"family": "B", "provider": "A"}),
        agent("mini", "chat", "translation", input_cost_per_token=1e-7, output_cost_per_token=5e-7, avg_latency_ms=250,
              quality_score=0.71),
    ]  # fmt: skip


def _pipelines() -> dict[str, Any]:
    web = "Build and deploy a web application"
    named: list[Any] = [
        "Plan the work by reasoning about what is wanted.",
        {"role": "build", "text": "Write the code of the pages.", "required_capabilities": ["programming"]},
        "Translate the manual into Dutch.",
    ]
    cases = [case(f"{n} stages", "team", request=web, num_agents=n) for n in (1, 2, 3)]
    cases += [
        case(f"{objective} at each stage", "team", request=web, options={"optimize_for": objective})
        for objective in ("cost", "latency", "quality", "quality_per_dollar", "Balanced")
    ]
    cases += [
        case("stages of one's own", "team", request=web, options={"stages": named, "optimize_for": "quality"}),
        case("texts alone", "team", request=web, num_agents=3, options={"stages": list(TEXTS[:4])}),
        case("a stage by its capability", "team", request=web, options={"stages": [
            {"required_capabilities": ["translation"]}, {"text": "Test it.", "role": "test"}]}),
        case("a capability for all", "team", request=web, constraints={"required_capabilities": ["reasoning"]}),
        case("one agent out", "team", request=web, constraints={"excluded_agents": ["large"]},
             options={"optimize_for": "quality"}),
        case("a floor", "team", request=web, constraints={"min_quality": 0.8}, options={"optimize_for": "cost"}),
        case("a limit per stage", "team", request=web, constraints={"max_cost": 0.0045},
             options={"optimize_for": "quality"}),
        case("a budget for all", "team", request=web, constraints={"budget_remaining": 0.012},
             options={"optimize_for": "quality"}),
        case("a budget of little", "team", request=web, constraints={"budget_remaining": 0.0015},
             options={"optimize_for": "quality"}),
        case("a budget that does not bind", "team", request=web, constraints={"budget_remaining": 5.0},
             options={"optimize_for": "quality"}),
        case("agents that fail together", "team", request=web, options={"correlation": 0.8, "optimize_for": "quality"}),
        case("agents that fail alone", "team", request=web,
             options={"correlation": 0.0, "family_correlation": 0.0, "optimize_for": "quality"}),
        case("families of their own", "team", request=web,
             options={"correlation": 0.2, "family_correlation": 0.9, "optimize_for": "cost"}),
        case("a strategy in capitals", "team", request=LONG, strategy=" PIPELINE ", num_agents=2),
    ]  # fmt: skip
    return scene("pipelines", "teams", _firm(), cases)


def _bad_teams() -> dict[str, Any]:
    web = "Build and deploy a web application"

    def bad(what: str, error: str, **given: Any) -> dict[str, Any]:
        return case(what, "team", error=error, **{"request": web, **given})

    cases = [
        bad("an unknown strategy", "invalid_input", strategy="swarm"),
        bad("no strategy", "invalid_input", strategy=""),
        bad("no agents wanted", "invalid_input", num_agents=0),
        bad("fewer than none", "invalid_input", num_agents=-2),
        bad("twenty-one", "invalid_input", num_agents=21),
        bad("half an agent", "invalid_input", num_agents=1.5),
        bad("six stages unnamed", "invalid_input", num_agents=6),
        bad("an empty request", "invalid_text", request=""),
        bad("a blank request", "invalid_text", request="\n ", strategy="ensemble"),
        bad("an unknown objective", "unknown_objective", options={"optimize_for": "speed"}),
        bad("an unknown constraint", "unknown_key", constraints={"speed": 1}),
        bad("a negative budget", "invalid_input", strategy="ensemble", constraints={"budget_remaining": -1}),
        bad("a negative cost", "invalid_input", strategy="parallel", constraints={"max_cost": -0.1}),
        bad("a target above 1", "invalid_input", strategy="cascade", options={"quality_target": 1.5}),
        bad("a combination there is not", "invalid_input", strategy="ensemble", options={"combination": "average"}),
        bad("a correlation too high", "invalid_input", strategy="ensemble", options={"correlation": 0.99}),
        bad("a family less alike than strangers", "invalid_input", strategy="ensemble",
            options={"correlation": 0.5, "family_correlation": 0.2}),
        bad("nothing to know an answer by", "invalid_input", strategy="cascade", options={"self_knowledge": 0.0}),
        bad("stages of an ensemble", "invalid_input", strategy="ensemble", options={"stages": ["one", "two"]}),
        bad("no stage", "invalid_input", options={"stages": []}),
        bad("a blank stage", "invalid_text", options={"stages": ["one", " "]}),
        bad("an unknown key of a stage", "unknown_key", options={"stages": [{"txt": "one"}]}),
        bad("a stage that is a number", "invalid_input", options={"stages": [3]}),
        bad("nobody for a stage", "no_match", options={"stages": [{"required_capabilities": ["law"]}]}),
        bad("nobody for any", "no_match", constraints={"min_quality": 0.99}),
        bad("nobody side by side", "no_match", strategy="parallel", constraints={"max_latency_ms": 10}),
        bad("nobody, and null is no answer", "no_match", strategy="ensemble",
            constraints={"max_cost": 1e-9, "on_no_match": "null"}),
        bad("a budget for no pipeline", "routing_error", constraints={"budget_remaining": 0.0003}),
        bad("a budget for nobody", "no_match", strategy="ensemble", constraints={"budget_remaining": 1e-7}),
        bad("a target nobody reaches", "routing_error", strategy="cascade", options={"quality_target": 0.999}),
        bad("a target too dear", "routing_error", strategy="cascade",
            options={"quality_target": 0.9}, constraints={"budget_remaining": 0.0005}),
    ]  # fmt: skip
    return scene("teams there cannot be", "teams", _firm(), cases)


def _side_by_side() -> dict[str, Any]:
    prepare = [
        agent("one", embedding={"0": 1.0}, cost_per_request=0.01, avg_latency_ms=300, quality_score=0.9,
              metadata={"family": "X"}),
        agent("twin", embedding={"0": 1.0}, cost_per_request=0.01, avg_latency_ms=310, quality_score=0.89,
              metadata={"family": "x"}),
        agent("cousin", embedding={"0": 0.8, "1": 0.6}, cost_per_request=0.02, avg_latency_ms=700, quality_score=0.84,
              metadata={"provider": "X"}),
        agent("stranger", embedding={"2": 1.0}, cost_per_request=0.003, avg_latency_ms=150, quality_score=0.75),
        agent("opposite", embedding={"0": -1.0}, cost_per_request=0.005, avg_latency_ms=90, quality_score=0.66),
    ]  # fmt: skip
    cases = [
        case(f"{n} of five", "team", request=TEXTS[n % 8], num_agents=n, strategy="parallel") for n in (1, 2, 3, 4, 5)
    ]
    cases += [
        case("more than there are", "team", request=TEXTS[0], num_agents=9, strategy="parallel"),
        case("two within a budget", "team", request=TEXTS[1], num_agents=2, strategy="parallel",
             constraints={"budget_remaining": 0.009}),
        case("a budget for one", "team", request=TEXTS[1], num_agents=3, strategy="parallel",
             constraints={"budget_remaining": 0.004}),
        case("without the twin", "team", request=TEXTS[2], num_agents=3, strategy="parallel",
             constraints={"excluded_agents": ["twin"]}),
        case("quick ones", "team", request=TEXTS[2], num_agents=2, strategy="parallel",
             constraints={"max_latency_ms": 310}),
        case("good ones", "team", request=TEXTS[2], num_agents=3, strategy="parallel",
             constraints={"min_quality": 0.8}),
        case("a strategy in capitals", "team", request=TEXTS[3], num_agents=2, strategy="Parallel"),
    ]  # fmt: skip
    return scene("side by side", "teams", prepare, cases)


def _votes() -> dict[str, Any]:
    prepare = [
        *_firm(),
        agent("careful", "reasoning", "law", cost_per_request=0.006, avg_latency_ms=1600, quality_score=0.9,
              metadata={"provider": "C"}),
    ]  # fmt: skip
    outcomes = [("mini", 0.9), ("mini", 0.8), ("large", 1.0), ("large", 0.95), ("careful", 0.5)]
    prepare += [step("metrics", name=name, quality=quality, latency_ms=800.0) for name, quality in outcomes]

    def vote(what: str, n: int, constraints: Any = None, **options: Any) -> dict[str, Any]:
        given = {"constraints": constraints, "options": options}
        more: dict[str, Any] = {key: value for key, value in given.items() if value}
        return case(what, "team", request=LONG, num_agents=n, strategy="ensemble", **more)

    cases = [vote(f"best of {n}", n) for n in (1, 2, 3, 4, 5)]
    cases += [vote(f"a majority of {n}", n, combination="majority") for n in (1, 2, 3, 5)]
    cases += [
        vote("best of 3 for little", 3, {"budget_remaining": 0.007}),
        vote("best of 3 for less", 3, {"budget_remaining": 0.005}),
        vote("best of 3 for next to nothing", 3, {"budget_remaining": 0.0006}),
        vote("a majority for little", 3, {"budget_remaining": 0.011}, combination="majority"),
        vote("strangers to each other", 3, correlation=0.0, family_correlation=0.0),
        vote("strangers who vote", 3, correlation=0.0, family_correlation=0.0, combination="majority"),
        vote("five strangers who vote", 5, correlation=0.0, family_correlation=0.0, combination="majority"),
        vote("all alike", 3, correlation=0.9, family_correlation=0.95),
        vote("families alike", 3, correlation=0.1, family_correlation=0.97),
        vote("no large one", 2, {"excluded_agents": ["large"]}),
        vote("only reasoners", 3, {"required_capabilities": ["reasoning"]}),
        vote("quick ones", 3, {"max_latency_ms": 1000}),
    ]
    return scene("ensembles", "teams", prepare, cases)


def _chains() -> dict[str, Any]:
    prepare = [
        agent("cheap", embedding={"0": 1.0}, cost_per_request=0.0005, avg_latency_ms=200, quality_score=0.7),
        agent("fair", embedding={"0": 1.0}, cost_per_request=0.004, avg_latency_ms=800, quality_score=0.85),
        agent("dear", embedding={"0": 1.0}, cost_per_request=0.03, avg_latency_ms=3000, quality_score=0.95),
        agent("overpriced", embedding={"0": 1.0}, cost_per_request=0.05, avg_latency_ms=3000, quality_score=0.8),
    ]

    def chain(what: str, n: int = 3, budget: float | None = None, **options: Any) -> dict[str, Any]:
        more: dict[str, Any] = {"options": options} if options else {}
        if budget is not None:
            more["constraints"] = {"budget_remaining": budget}
        return case(what, "team", request=TEXTS[4], num_agents=n, strategy="cascade", **more)

    cases = [
        chain("as good as the best"), chain("two at most", 2), chain("one at most", 1),
        chain("nine in ten", quality_target=0.9), chain("four in five", quality_target=0.8),
        chain("seven in ten", quality_target=0.7), chain("half", quality_target=0.5), chain("anything",
              quality_target=0.0),
        chain("a cent", budget=0.01), chain("half a cent", budget=0.005), chain("a tenth of a cent", budget=0.001),
        chain("all the money", budget=1.0), chain("a target and a budget", budget=0.02, quality_target=0.93),
        chain("answers that show much", quality_target=0.93, self_knowledge=0.9),
        chain("answers that show little", quality_target=0.93, self_knowledge=0.1),
        chain("requests that are hard for all", quality_target=0.93, correlation=0.9),
        chain("requests that are hard for none", quality_target=0.95, correlation=0.0),
    ]  # fmt: skip
    without = {"excluded_agents": ["fair"], "max_cost": 0.04}
    target = {"quality_target": 0.9}
    cases.append(
        case(
            "the money goes elsewhere",
            "team",
            request=TEXTS[4],
            strategy="cascade",
            constraints=without,
            options=target,
        )
    )
    return scene("cascades", "teams", prepare, cases)


def _money_for_teams() -> dict[str, Any]:
    prepare = [
        agent("priced", "chat", cost_per_request=0.01, avg_latency_ms=100, quality_score=0.8),
        agent("unpriced", "chat", "law", avg_latency_ms=200, quality_score=0.95),
        agent("free", "chat", cost_per_request=0, quality_score=0.6),
    ]
    request = "What does this clause mean?"
    cases = [
        case("an unknown cost side by side", "team", request=request, num_agents=2, strategy="parallel"),
        case("an unknown cost in an ensemble", "team", request=request, num_agents=1, strategy="ensemble"),
        case("no unknown cost within a budget", "team", request=request, num_agents=3, strategy="ensemble",
             constraints={"budget_remaining": 0.02}),
        case("no unknown cost in a chain", "team", request=request, num_agents=3, strategy="cascade"),
        case("free within no budget", "team", request=request, num_agents=3, strategy="parallel",
             constraints={"budget_remaining": 0}),
        case("a stage at an unknown cost", "team", request=request, num_agents=2, options={"optimize_for": "quality"}),
        case("only the unknown", "team", request=request, strategy="cascade", error="routing_error",
             constraints={"required_capabilities": ["law"]}),
    ]  # fmt: skip
    return scene("money for teams", "teams", prepare, cases)


def _strange_teams() -> dict[str, Any]:
    cases = [
        case(f"nobody: {strategy}", "team", request="Anything.", strategy=strategy, error="no_agents")
        for strategy in ("pipeline", "parallel", "ensemble", "cascade")
    ]
    cases += [
        case("nobody, but the strategy comes first", "team", request="Anything.", strategy="none",
             error="invalid_input"),
        case("one comes", "register", config={"name": "alone", "capabilities": ["chat"], "cost_per_request": 0.002,
                                              "avg_latency_ms": 120, "quality_score": 0.8}),
        *(case(f"one alone: {strategy}", "team", request="Anything.", strategy=strategy, num_agents=2)
          for strategy in ("pipeline", "parallel", "ensemble", "cascade")),
    ]  # fmt: skip
    return scene("a team of nobody", "teams", [], cases)


def _batches(name: str, size: int, requests: int, count: int) -> dict[str, Any]:
    rng = random.Random(f"total cost: {name}")
    prepare = []
    for number in range(size):
        quality = round(0.55 + 0.4 * number / (size - 1) + rng.uniform(-0.03, 0.03), 3)
        dear = 10 ** (3.0 * quality - 1.5 + rng.uniform(-0.3, 0.3))
        prepare.append(agent(
            f"{name}-{number}", quality_score=quality, avg_latency_ms=round(100 * dear) + 50,
            embedding={str(p): round(rng.uniform(-1, 1), 3) or 1.0 for p in sorted(rng.sample(range(384), 12))},
            input_cost_per_token=round(dear * 1e-7, 10), output_cost_per_token=round(dear * 4e-7, 10),
        ))  # fmt: skip
    usual = [step_["given"]["config"]["output_cost_per_token"] * 300 for step_ in prepare]

    def drawn(by_vector: bool) -> dict[str, Any]:
        if by_vector:
            rows = [
                {str(p): round(rng.uniform(-1, 1), 3) or 1.0 for p in sorted(rng.sample(range(384), 20))}
                for _ in range(requests)
            ]
            return {"embeddings": rows}
        return {"requests": [f"{text} ({rng.randint(100, 999)})" for text in rng.sample(TEXTS, requests)]}

    cases = []
    for number in range(count):
        limits: dict[str, Any] = {}
        kind = number % 4
        if kind in (0, 3):
            limits["min_mean_quality"] = round(rng.uniform(0.6, 0.85), 3)
        if kind in (1, 3):
            amount = requests * rng.uniform(min(usual), max(usual)) * (1 + (kind == 3))
            limits["budget_remaining"] = float(f"{amount:.3g}")
        if rng.random() < 0.4:
            limits["capacities"] = {f"{name}-{j}": rng.randint(1, 2) for j in rng.sample(range(size), 2)}
        if rng.random() < 0.2:
            limits["excluded_agents"] = [f"{name}-{rng.randrange(size)}"]
        if rng.random() < 0.2:
            limits["min_quality"] = round(rng.uniform(0.45, 0.6), 3)
        cases.append(case(f"drawn {number + 1:02}", "assign", error=DRAWN, **drawn(number % 8 == 1),
                          **({"constraints": limits} if limits else {})))  # fmt: skip
    return scene(name, "batches", prepare, cases)


def _batch_edges() -> dict[str, Any]:
    prepare = [
        *_firm(),
        agent("unpriced", "reasoning", avg_latency_ms=10, quality_score=0.99),
        agent("asleep", "reasoning", cost_per_request=0, quality_score=1, is_active=False),
    ]
    four = list(TEXTS[:4])
    cases = [
        case("one request", "assign", requests=[TEXTS[0]]),
        case("neither floor nor budget", "assign", requests=four),
        case("a share of one's own", "assign", requests=four, constraints={"good_enough": 0.95}),
        case("no share at all", "assign", requests=four, constraints={"good_enough": 0.01}),
        case("whatever the quality", "assign", requests=four, constraints={"min_mean_quality": 0}),
        case("the same twice", "assign", requests=[TEXTS[1], TEXTS[1], TEXTS[2]],
             constraints={"min_mean_quality": 0.85}),
        case("all the money", "assign", requests=four, constraints={"budget_remaining": 100}),
        case("little money", "assign", requests=four, constraints={"budget_remaining": 0.006}),
        case("money and a floor", "assign", requests=four,
             constraints={"budget_remaining": 0.02, "min_mean_quality": 0.8}),
        case("one each", "assign", requests=four,
             constraints={"capacities": {"large": 1, "medium": 1, "coder": 1, "mini": 1}}),
        case("nobody may take any but two", "assign", requests=four[:2],
             constraints={"capacities": {"large": 0, "medium": 0, "coder": 1, "mini": 1}}),
        case("room for more than there is", "assign", requests=four, constraints={"capacities": {"mini": 100}}),
        case("a floor for each", "assign", requests=four, constraints={"min_quality": 0.82}),
        case("quick ones", "assign", requests=four, constraints={"max_latency_ms": 1000, "min_mean_quality": 0.75}),
        case("reasoners only", "assign", requests=four, constraints={"required_capabilities": ["Reasoning"]}),
        case("a limit for each", "assign", requests=four,
             constraints={"max_cost": 0.003, "budget_remaining": 0.008}),
        case("nobody fits, and null", "assign", requests=four[:2],
             constraints={"required_capabilities": ["law"], "on_no_match": "null"}),
        case("by vectors", "assign", embeddings=[{"0": 1.0}, {"5": 1.0, "6": -2.0}, {"9": 0.1}],
             constraints={"min_mean_quality": 0.8}),
    ]  # fmt: skip
    return scene("edges of batches", "batches", prepare, cases)


def _bad_batches() -> dict[str, Any]:
    def bad(what: str, error: str, requests: Any = UNGIVEN, **limits: Any) -> dict[str, Any]:
        given = {"requests": list(TEXTS[:3]) if requests is UNGIVEN else requests}
        return case(what, "assign", error=error, **given, **({"constraints": limits} if limits else {}))

    cases = [
        bad("an empty batch", "invalid_input", []),
        bad("an empty request", "invalid_text", ["Hello.", ""]),
        bad("a blank request", "invalid_text", ["Hello.", "Goodbye.", " \t"]),
        bad("a floor above 1", "invalid_input", min_mean_quality=1.2),
        bad("a floor below 0", "invalid_input", min_mean_quality=-0.2),
        bad("a floor that nobody reaches", "routing_error", min_mean_quality=0.99),
        bad("a floor just out of reach", "routing_error", min_mean_quality=0.95),
        bad("a negative budget", "invalid_input", budget_remaining=-5),
        bad("a budget for nobody", "routing_error", budget_remaining=0.0001),
        bad("a budget of nothing", "routing_error", budget_remaining=0),
        bad("a floor that the budget does not pay for", "routing_error", budget_remaining=0.004, min_mean_quality=0.9),
        bad("room for two of three", "routing_error", capacities={"large": 1, "medium": 1, "coder": 0, "mini": 0}),
        bad("no room", "routing_error", capacities={"large": 0, "medium": 0, "coder": 0, "mini": 0}),
        bad("room for an agent there is not", "not_found", capacities={"lagre": 3}),
        bad("less than no room", "invalid_input", capacities={"large": -1}),
        bad("half a place", "invalid_input", capacities={"large": 1.5}),
        bad("room as a list", "invalid_input", capacities=["large"]),
        bad("an unknown constraint", "unknown_key", max_price=3),
        bad("nobody fits", "no_match", min_quality=0.99),
        bad("nobody has it", "no_match", required_capabilities=["astronomy"]),
        bad("an answer there is not", "invalid_input", on_no_match="maybe"),
        case("a short vector", "assign", embeddings=[[1.0, 0.0]], error="space_mismatch"),
        case("a vector of zeros", "assign", embeddings=[{"0": 1.0}, {"0": 0.0}], error="invalid_vector"),
    ]  # fmt: skip
    return scene("batches there cannot be", "batches", _firm(), cases)


UNGIVEN: Any = object()


def _months() -> dict[str, Any]:
    prepare = [
        *_firm(),
        agent("unpriced", "law", avg_latency_ms=10, quality_score=0.99),
        agent("unclocked", "law", cost_per_request=0.01, quality_score=0.99),
        agent("asleep", "law", cost_per_request=0, avg_latency_ms=1, quality_score=1, is_active=False),
        step("metrics", name="mini", quality=0.95, latency_ms=240.0),
        step("metrics", name="mini", quality=0.9, latency_ms=260.0),
    ]

    def month(what: str, usd: float, **given: Any) -> dict[str, Any]:
        return case(what, "optimize_budget", monthly_budget=usd, **given)

    cases = [
        month("without traffic", 100.0), month("less money", 1.0), month("more money", 1e6),
        month("good agents only", 100.0, quality_threshold=0.85), month("nobody is as good", 100.0,
              quality_threshold=0.97),
        month("whatever the quality", 100.0, quality_threshold=0), month("quick agents only", 100.0,
              latency_threshold_ms=1000),
        month("one is quick enough", 100.0, latency_threshold_ms=250), month("slow ones, too", 50.0,
              latency_threshold_ms=60000),
        month("both thresholds", 100.0, quality_threshold=0.8, latency_threshold_ms=1500),
        month("told how many", 100.0, requests_per_month=20000), month("told many", 100.0, requests_per_month=100000),
        month("told few", 100.0, requests_per_month=10),
        month("told how many, quality wanted", 100.0, requests_per_month=25000, quality_threshold=0.9),
        month("told how many, money short", 12.0, requests_per_month=20000, quality_threshold=0.86),
    ]  # fmt: skip
    return scene("a month's budget", "months", prepare, cases)


def _months_of_traffic() -> dict[str, Any]:
    rng = random.Random("a month of traffic")
    prepare = _firm()
    for number in range(24):
        day, hour = 1 + (number * 27) // 24, (number * 7) % 24
        limits = {"required_capabilities": ["reasoning"]} if number % 5 == 0 else {}
        if number % 7 == 3:
            limits = {"excluded_agents": ["coder"]}
        prepare.append(step(
            "route", f"2026-09-{day:02} {hour:02}:{number:02}:00", objective=rng.choice(["cost", "quality",
            "balanced"]),
            request=f"{rng.choice(TEXTS)} ({rng.randint(100, 999)})", **({"constraints": limits} if limits else {}),
        ))  # fmt: skip

    def month(what: str, usd: float, when: str = "2026-09-28 12:00", **given: Any) -> dict[str, Any]:
        return case(what, "optimize_budget", when, monthly_budget=usd, **given)

    cases = [
        month("enough", 1.0), month("not quite enough for the best", 0.1), month("tight", 0.02),
        month("a threshold within reach", 0.1, quality_threshold=0.88), month("one out of reach", 1.0,
              quality_threshold=0.99),
        month("quick agents", 1.0, latency_threshold_ms=1200), month("ten thousand requests", 30.0,
              requests_per_month=10000),
        month("ten thousand, tight", 8.0, requests_per_month=10000), month("later, fewer count", 0.1,
              "2026-10-10 00:00"),
        month("much later, one counts", 0.1, "2026-10-27 09:00"), month("when all is forgotten", 100.0,
              "2027-01-01 00:00"),
        case("too little", "optimize_budget", "2026-09-28 12:00", monthly_budget=0.001, error="routing_error"),
        case("too little for many", "optimize_budget", "2026-09-28 12:00", monthly_budget=1, requests_per_month=1000000,
             error="routing_error"),
        case("one more request", "route", "2026-09-28 13:00", request=LONG, objective="quality"),
        month("counts as well", 0.1, "2026-09-28 13:00"),
    ]  # fmt: skip
    return scene("a month of traffic", "months", prepare, cases)


def _bad_months() -> dict[str, Any]:
    def bad(what: str, error: str, usd: Any = 10.0, **given: Any) -> dict[str, Any]:
        return case(what, "optimize_budget", error=error, monthly_budget=usd, **given)

    cases = [
        bad("nobody is registered", "no_agents"),
        case("one comes", "register", config={"name": "slow", "cost_per_request": 0.01, "avg_latency_ms": 9000}),
        case("and one of unknown cost", "register", config={"name": "unpriced", "avg_latency_ms": 10}),
        bad("nobody is quick enough", "no_match"),
        bad("no money", "invalid_input", 0),
        bad("less than none", "invalid_input", -3),
        bad("more than there is", "invalid_input", 1e13),
        bad("a quality above 1", "invalid_input", quality_threshold=1.1),
        bad("a quality below 0", "invalid_input", quality_threshold=-0.1),
        bad("a negative latency", "invalid_input", latency_threshold_ms=-1),
        bad("no requests", "invalid_input", requests_per_month=0),
        bad("a budget for too few", "routing_error", 1.0, latency_threshold_ms=10000, requests_per_month=200),
        case("slow, but in time", "optimize_budget", monthly_budget=10.0, latency_threshold_ms=10000,
             requests_per_month=200),
    ]  # fmt: skip
    return scene("months there cannot be", "months", [], cases)
