"""The nouns refuse what cannot be used, and say what was given, what was expected, what to do."""

from __future__ import annotations

import math
import pickle
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer import errors
from tinydancer import validation as check
from tinydancer.errors import (
    InvalidInputError,
    InvalidNameError,
    InvalidTextError,
    InvalidVectorError,
    NoMatchError,
    SpaceMismatchError,
    TinyDancerError,
    UnknownKeyError,
    UnknownObjectiveError,
)
from tinydancer.types import (
    OBJECTIVES,
    Agent,
    AgentPerformance,
    AgentRecord,
    Candidate,
    Constraints,
    CostModel,
    EmbeddingSpace,
    Outcome,
    objective_of,
)

TREE = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, TinyDancerError)]


@pytest.mark.parametrize("kind", TREE, ids=lambda c: c.__name__)
def test_every_error_has_a_code_an_sqlstate_and_an_http_status_and_survives_pickling(kind: Any) -> None:
    extra = {"exclusions": {"a": "b"}} if kind is NoMatchError else {}
    error = kind("what was given.", hint="what to do.", **extra)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert again.to_dict() == error.to_dict()
    assert str(again) == "what was given. what to do."
    assert len(kind.sqlstate) == 5
    assert 400 <= kind.http_status < 600


def test_codes_are_distinct() -> None:
    assert len({c.code for c in TREE}) == len(TREE)


@pytest.mark.parametrize(
    "name",
    ["", "   ", " gpt", "a\nb", "a\x00b", "a\x7f", "x" * 201, "x" * 10_000, None, 7, b"gpt", "\ud800"],
)
def test_bad_names_are_refused(name: Any) -> None:
    with pytest.raises(InvalidNameError) as caught:
        Agent(name=name)
    assert "agent name" in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "name", ["gpt-4", "'; DROP TABLE agents; --", "$(rm -rf /)", "a`b|c&d", "模型", "é" * 200, "%s{0}"]
)
def test_metacharacters_are_only_characters(name: str) -> None:
    assert Agent(name=name).name == name


@pytest.mark.parametrize("bad", [-0.01, math.nan, math.inf, 1e7, "0.03", True, [0.03], object()])
@pytest.mark.parametrize("field", ["cost_per_request", "input_cost_per_token", "cost_per_second"])
def test_bad_prices_are_refused(field: str, bad: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"^{field} is .*expected a number"):
        CostModel(**{field: bad})


@pytest.mark.parametrize("value", [Decimal("0.03"), np.float32(0.03), np.int64(0), 0])
def test_numbers_of_other_types_are_taken(value: Any) -> None:
    assert CostModel(cost_per_request=value).cost_per_request == pytest.approx(float(value))


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan, "good"])
def test_quality_outside_its_range_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"quality_score is .*in \[0, 1\]"):
        Agent(name="a", quality_score=bad)
    with pytest.raises(InvalidInputError, match=r"quality is .*in \[0, 1\]"):
        Outcome(agent_name="a", occurred_at=0.0, quality=bad)


def test_two_prices_for_the_same_tokens_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="Both cost_per_token and cost_per_1k_tokens"):
        CostModel(cost_per_token=1e-6, cost_per_1k_tokens=0.001)


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        ({}, None),
        ({"cost_per_request": 0.5}, 0.5),
        ({"cost_per_request": 0.5, "cost_per_call": 0.25}, 0.75),
        ({"cost_per_1k_tokens": 2.0}, 0.3),
        ({"cost_per_token": 0.002}, 0.3),
        ({"input_cost_per_token": 0.001, "output_cost_per_token": 0.01}, 0.6),
        ({"cost_per_token": 0.001, "output_cost_per_token": 0.01}, 0.6),
        ({"input_cost_per_token": 0.001}, None),
        ({"output_cost_per_token": 0.001}, None),
        ({"cached_input_cost_per_token": 0.001}, None),
        ({"cost_per_second": 0.1}, 0.2),
        ({"monthly_fixed_cost": 900.0}, 0.0),
    ],
)
def test_the_cost_of_one_request(prices: dict[str, float], expected: float | None) -> None:
    cost = CostModel(**prices).estimate_usd(100, 50, seconds=2.0)
    assert cost == (None if expected is None else pytest.approx(expected))


def test_paying_by_the_second_needs_the_seconds() -> None:
    assert CostModel(cost_per_second=0.1).estimate_usd(1, 1) is None


def test_cached_tokens_are_never_more_than_the_tokens() -> None:
    model = CostModel(input_cost_per_token=0.01, cached_input_cost_per_token=0.001, output_cost_per_token=0.0)
    assert model.estimate_usd(10, 0, cached_input_tokens=50) == pytest.approx(0.01)


@pytest.mark.parametrize("objective", ["Cost", " quality ", *OBJECTIVES])
def test_objectives_are_found_in_any_case(objective: str) -> None:
    assert objective_of(objective) == objective.strip().lower()


@pytest.mark.parametrize("objective", ["cheapest", "", None, 3, ["cost"]])
def test_an_unknown_objective_lists_the_valid_ones(objective: Any) -> None:
    with pytest.raises(UnknownObjectiveError, match="balanced, cost, latency, quality, quality_per_dollar"):
        objective_of(objective)


def test_unknown_constraints_are_refused_with_the_nearest_known() -> None:
    with pytest.raises(UnknownKeyError, match="max_latency_ms") as caught:
        Constraints.from_mapping({"max_latency": 5})
    assert caught.value.hint == "Did you mean 'max_latency_ms'?"
    with pytest.raises(InvalidInputError, match="expected a JSON object"):
        Constraints.from_mapping([("max_cost", 1)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad",
    [{"max_cost": -1}, {"min_quality": 1.5}, {"max_latency_ms": math.nan}, {"required_capabilities": "code"},
     {"required_capabilities": [""]}, {"on_no_match": "shrug"}, {"excluded_agents": 5}],
)  # fmt: skip
def test_bad_constraints_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Constraints.from_mapping(bad)
    assert next(iter(bad)) in str(caught.value)


def test_constraints_round_trip_and_null_is_absent() -> None:
    given_constraints = {"max_cost": 0.5, "required_capabilities": ["a", "b"], "on_no_match": "null"}
    assert Constraints.from_mapping({**given_constraints, "min_quality": None}).to_dict() == given_constraints
    assert Constraints.from_mapping(None).to_dict() == {}


def test_an_agent_from_one_json_object_in_either_form() -> None:
    nested = Agent.from_config(
        {"name": "a", "type": "LLM", "capabilities": ["x", "x"], "cost_model": {"per_request": 0.5, "per_token": 0.1},
         "performance": {"avg_latency_ms": 3, "quality_score": 0.5, "p95_latency_ms": 9, "total_requests": 4},
         "active": False, "metadata": None}
    )  # fmt: skip
    flat = Agent.from_config(
        {"name": "a", "agent_type": "llm", "capabilities": ["x"], "cost_per_request": 0.5, "cost_per_token": 0.1,
         "latency": 3, "quality": 0.5, "is_active": False}
    )  # fmt: skip
    assert nested == flat
    assert Agent.from_config(nested.to_dict()) == nested


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "has no name"),
        ({"name": "a", "prize": 3}, "Unknown agent field 'prize'"),
        ({"name": "a", "cost_model": {"per_month": 3}}, "Unknown key in cost_model"),
        ({"name": "a", "capabilities": "coding"}, "expected a list of names"),
        ({"name": "a", "metadata": [1]}, "expected a JSON object"),
        ({"name": "a", "metadata": {"x": math.nan}}, "metadata is no JSON"),
        ({"name": "a", "metadata": {"x": "y" * 70_000}}, "at most 65,536"),
        ({"name": "a", "is_active": "yes"}, "expected true or false"),
        ({"name": "a", "cost": 0.3}, "Unknown agent field 'cost'"),
        ("gpt", "expected a JSON object"),
    ],
)
def test_bad_agent_objects_say_what_is_wrong(config: Any, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        Agent.from_config(config)


def test_an_agents_cost_must_be_a_cost_model() -> None:
    with pytest.raises(InvalidInputError, match="expected a CostModel"):
        Agent(name="a", cost=0.5)  # type: ignore[arg-type]


def test_updates_keep_what_they_do_not_name() -> None:
    agent = Agent.from_config(
        {"name": "a", "cost_per_request": 0.5, "cost_per_second": 0.1, "capabilities": ["x"], "embedding": [1, 0]}
    )
    changed = agent.updated({"cost_per_request": None, "quality": 0.7})
    assert (changed.cost.cost_per_request, changed.cost.cost_per_second, changed.quality_score) == (None, 0.1, 0.7)
    assert changed.embedding is not None
    assert agent.updated({"capabilities": ["y"]}).embedding is None, "another description wants another vector"
    assert agent.updated({"name": "a"}) == agent
    with pytest.raises(InvalidInputError, match="Names do not change"):
        agent.updated({"name": "b"})


def test_the_description_joins_capabilities_and_metadata() -> None:
    agent = Agent(name="a", capabilities=("x", "y"), metadata={"description": " Does things. "})
    assert agent.description == "x, y. Does things."
    assert Agent(name="a").description == ""


def test_a_listing_has_the_documents_columns() -> None:
    row = AgentRecord(agent=Agent(name="a"), performance=AgentPerformance(total_requests=3)).to_dict()
    assert set(row) >= {
        "name", "agent_type", "capabilities", "cost_per_request", "avg_latency_ms", "p95_latency_ms",
        "p99_latency_ms", "quality_score", "success_rate", "total_requests", "is_active",
    }  # fmt: skip


@pytest.mark.parametrize(
    "bad", [[math.nan, 1.0], [math.inf, 0.0], [1e300, 1.0], [0.0, 0.0], [], [[1.0, 2.0]], 3.0, "vector", [None], ["a"]]
)
def test_bad_vectors_are_refused(bad: Any) -> None:
    with pytest.raises(InvalidVectorError) as caught:
        check.unit_vector(bad, "The request's embedding")
    assert str(caught.value).startswith("The request's embedding")


def test_a_wrong_dimension_names_both() -> None:
    with pytest.raises(SpaceMismatchError, match=r"has 3 dimensions; .*\(space 'minilm'\) have 384"):
        check.unit_vector([1, 2, 3], "The vector", dim=384, space="minilm")
    with pytest.raises(SpaceMismatchError, match=r"'a' \(3 dimensions\).*'b' \(4 dimensions\)"):
        EmbeddingSpace("b", 4).require(EmbeddingSpace("a", 3), "The vector")


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=8))
def test_unit_vectors_have_length_one_at_any_scale(values: list[float]) -> None:
    array = np.array(values, np.float32)
    if not np.any(array):
        return
    assert np.linalg.norm(check.unit_vector(array, "v").astype(np.float64)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"), (" \n\t", "empty"), ("x" * 1_000_000, "has 1,000,000 characters"), ("a\x00b", "NUL"),
        ("caf\udce9", "lone surrogate at character 3"), (b"bytes", "5 bytes"), (None, "expected text"),
        (5, "expected text"),
    ],
)  # fmt: skip
def test_bad_request_texts_are_refused(text: Any, words: str) -> None:
    with pytest.raises(InvalidTextError, match=words):
        check.request_text(text)


def test_text_that_is_not_utf8_names_the_byte() -> None:
    with pytest.raises(InvalidTextError, match=r"byte 0xe9 at position 3"):
        check.decode_utf8("café".encode("latin-1"))
    assert check.decode_utf8("\ufeffcafé".encode()) == "café"


@pytest.mark.parametrize(
    "bad", [{"latency_ms": -1}, {"cost_usd": math.inf}, {"output_tokens": 1.5}, {"success": 1}, {"occurred_at": -5}]
)
def test_bad_outcomes_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(bad))):
        Outcome(**{"agent_name": "a", "occurred_at": 0.0, **bad})


def test_candidates_are_checked() -> None:
    candidate = Candidate(id="c", embedding=[3.0, 4.0])  # type: ignore[arg-type]
    assert candidate.embedding.tolist() == [3.0, 4.0]
    for bad in ({"success_rate": 2}, {"access_count": -1}, {"created_at": math.nan}, {"embedding": [0, 0]}, {"id": ""}):
        with pytest.raises(InvalidInputError):
            Candidate(**{"id": "c", "embedding": [1.0], **bad})  # type: ignore[arg-type]


def test_ranges_are_worded() -> None:
    for low, high, words in ((1.0, math.inf, "of at least 1 USD"), (-math.inf, 2.0, "of at most 2 USD"),
                             (0.0, 1.0, r"in \[0, 1\] USD"), (-math.inf, math.inf, "number of USD")):  # fmt: skip
        with pytest.raises(InvalidInputError, match=words):
            check.number("x", "price", low=low, high=high, unit="USD")
