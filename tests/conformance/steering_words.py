"""How the command line says a step of a scene. In: a step. Out: the words of a command and what it reads, or None."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.conformance.steering import Step

Words = tuple[list[str], str | None]
NUMBERS = (int, float)


def words_of(step: Step) -> Words | None:
    """The command that says a step, and what it reads; None where there is none."""
    if step.call not in _COMMANDS:
        return None
    return _COMMANDS[step.call](dict(step.given))


def _match_words(given: dict[str, Any]) -> Words | None:
    text, top_k, tier = given.pop("request", None), given.pop("top_k", 3), given.pop("user_tier", None)
    counts = given.pop("count", False)  # where a case does not say, no route has a rate limit
    if not isinstance(text, str) or given or counts or not isinstance(top_k, int):
        return None
    tiers = [] if tier is None else ["--tier", tier]
    return ["routes", "match", "--json", "--top", str(top_k), *tiers, "--", text], None


def _classify_words(given: dict[str, Any]) -> Words | None:
    if given.keys() != {"request"}:
        return None
    return ["classify", "--json", "--", given["request"]], None


def _create_words(given: dict[str, Any]) -> Words | None:
    config = given["config"]
    if not isinstance(config, dict) or not {"name", "target_agent"} <= config.keys():
        return None
    flags = _route_flags({key: value for key, value in config.items() if key not in ("name", "target_agent")})
    if flags is None or not isinstance(config["target_agent"], str) or not isinstance(config["name"], str):
        return None
    return ["routes", "add", "--json", f"--to={config['target_agent']}", *flags, "--", config["name"]], None


def _update_words(given: dict[str, Any]) -> Words | None:
    changes = dict(given["changes"]) if isinstance(given["changes"], dict) else {"no": "mapping"}
    words = ["routes", "update", "--json"]
    if isinstance(changes.get("target_agent"), str):
        words += [f"--to={changes.pop('target_agent')}"]
    if "is_active" in changes:
        words += ["--active" if changes.pop("is_active") is True else "--inactive"]
    if "conditions" in changes and changes["conditions"] in ({}, None):
        del changes["conditions"]
        words += ["--no-conditions"]
    if "description" in changes and changes["description"] == "":
        return None
    flags = None if any(value is None for value in changes.values()) else _route_flags(changes)
    return None if flags is None else ([*words, *flags, "--", given["name"]], None)


def _route_flags(config: dict[str, Any]) -> list[str] | None:
    flags: list[str] = []
    for key, value in config.items():
        match key, value:
            case "description", str():
                flags += [f"--description={value}"]
            case ("priority", int()) | ("threshold", int() | float()):
                flags += [f"--{key}={value}"]
            case (("utterances" | "negative_utterances"), list()) if all(isinstance(v, str) for v in value):
                name = "utterance" if key == "utterances" else "not"
                flags += [f"--{name}={text}" for text in value]
            case "conditions", dict() if value:
                said = _condition_flags(value)
                if said is None:
                    return None
                flags += said
            case _:
                return None
    return flags


def _condition_flags(conditions: dict[str, Any]) -> list[str] | None:
    flags: list[str] = []
    for key, value in conditions.items():
        match key, value:
            case "time_range", {"start": str(start), "end": str(end), **rest}:
                flags += [f"--between={start}-{end}"]
                if "time_zone" in rest:
                    flags += [f"--time-zone={rest.pop('time_zone')}"]
                if isinstance(days := rest.pop("days", None), list):
                    flags += [f"--days={','.join(days)}"]
                    if not days:
                        return None
                if rest:
                    return None
            case "user_tier", [*tiers] if tiers:
                flags += [f"--tier={tier}" for tier in tiers]
            case "rate_limit", {"requests": int(requests), "per_s": int() | float() as per_s}:
                flags += [f"--rate-limit={requests}/{per_s}"]
            case _:
                return None
    return flags


def _delete_words(given: dict[str, Any]) -> Words | None:
    return ["routes", "remove", "--json", "--", given["name"]], None


def _change_utterances_words(flag: str) -> Callable[[dict[str, Any]], Words | None]:
    def words(given: dict[str, Any]) -> Words | None:
        name = "--not" if given.get("negative") else flag
        texts = given["utterances"]
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            return None
        return ["routes", "update", "--json", *(f"{name}={text}" for text in texts), "--", given["name"]], None

    return words


def _list_words(given: dict[str, Any]) -> Words | None:
    return ["routes", "list", "--json"], None


_LIMITS = {
    "max_cost": "--max-cost", "max_latency_ms": "--max-latency-ms", "budget_remaining": "--budget",
    "required_capabilities": "--require", "excluded_agents": "--exclude",
}  # fmt: skip


def _limit_words(given: dict[str, Any], more: dict[str, str]) -> list[str] | None:
    flags = {**_LIMITS, **more}
    words = []
    for key, value in given.items():
        values = value if isinstance(value, list) else [value]
        kinds = str if key in ("stages", "required_capabilities", "excluded_agents") else (str, int, float)
        if key not in flags or not values or not all(isinstance(v, kinds) and v is not True for v in values):
            return None
        words += [f"{flags[key]}={v}" for v in values]
    return words


def _team_words(given: dict[str, Any]) -> Words | None:
    options = given.get("options") or {}
    named = {**(given.get("constraints") or {}), **options}
    named |= {key: given[key] for key in ("num_agents", "strategy") if key in given}
    flags = {
        "stages": "--stage", "optimize_for": "--optimize-for", "quality_target": "--quality-target",
        "combination": "--combination", "num_agents": "--num-agents", "strategy": "--strategy",
    }  # fmt: skip
    words = _limit_words(named, flags)
    if words is None or not isinstance(given.get("num_agents", 3), int):
        return None
    return ["plan", "agents", "--json", *words, "--", given["request"]], None


def _assign_words(given: dict[str, Any]) -> Words | None:
    limits = dict(given.get("constraints") or {})
    room = limits.pop("capacities", {})
    if given.get("requests") is None or not isinstance(room, dict) or given.get("context"):
        return None
    if not all(isinstance(text, str) and text.strip() == text != "" for text in given["requests"]):
        return None
    if not all(isinstance(most, int) and most >= 0 for most in room.values()):
        return None
    words = _limit_words(limits, {"min_quality": "--min-quality", "min_mean_quality": "--min-mean-quality"})
    if words is None:
        return None
    words += [f"--capacity={name}={most}" for name, most in room.items()]
    return ["plan", "batch", "--json", *words, "--", "-"], "".join(f"{text}\n" for text in given["requests"])


def _budget_words(given: dict[str, Any]) -> Words | None:
    flags = {
        "quality_threshold": "--quality", "latency_threshold_ms": "--latency-ms",
        "requests_per_month": "--requests-per-month",
    }  # fmt: skip
    amount = given.pop("monthly_budget")
    words = [f"{flags[key]}={value}" for key, value in given.items()]
    return ["plan", "budget", "--json", *words, "--", str(amount)], None


def _route_words(given: dict[str, Any]) -> Words | None:
    context, limits = given.get("context") or {}, given.get("constraints") or {}
    flags = {
        "max_cost": "--max-cost", "max_latency_ms": "--max-latency-ms", "min_quality": "--min-quality",
        "required_capabilities": "--require", "excluded_agents": "--exclude", "on_no_match": "--on-no-match",
        "key": "--key", "tags": "--tag", "task": "--task", "route_name": "--route-name",
    }  # fmt: skip
    words = _limit_words({**limits, **context}, flags)
    if words is None or not isinstance(given.get("request"), str):
        return None
    words += ["--infer-capabilities"] if given.get("infer_capabilities") else []
    return [
        "route",
        "--json",
        f"--optimize-for={given.get('objective', 'balanced')}",
        *words,
        "--",
        given["request"],
    ], None


_BUDGET_FLAGS = {
    "period": "--period", "on_limit": "--on-limit", "pacing": "--pacing", "burst": "--burst", "alert_at": "--alert-at",
    "time_zone": "--time-zone", "starts_at": "--starts-at", "ends_at": "--ends-at",
    "release_after_s": "--release-after", "amount_usd": "--amount",
}  # fmt: skip


def _budget_flags(config: dict[str, Any]) -> list[str] | None:
    words: list[str] = []
    if "scope" in config and config["scope"] != "tenant":
        if config["scope"] not in ("agent", "key", "tag") or not isinstance(config.get("scope_value"), str):
            return None
        words.append(f"--{config['scope']}={config['scope_value']}")
    elif "scope" in config or "scope_value" in config:
        return None
    for key, value in config.items():
        if key in ("scope", "scope_value"):
            continue
        values = value if isinstance(value, list) else [value]
        is_number = key in ("amount_usd", "burst", "alert_at", "release_after_s")
        kinds = (int, float) if is_number else (str, int)
        if key not in _BUDGET_FLAGS or not values or not all(isinstance(v, kinds) for v in values):
            return None
        words += [f"{_BUDGET_FLAGS[key]}={v}" for v in values]
    return words


def _create_budget_words(given: dict[str, Any]) -> Words | None:
    config = given["config"]
    if not isinstance(config, dict) or not isinstance(config.get("name"), str):
        return None
    if not isinstance(config.get("amount_usd"), NUMBERS):
        return None
    words = _budget_flags({key: value for key, value in config.items() if key not in ("name", "amount_usd")})
    if words is None:
        return None
    return ["budgets", "create", "--json", *words, "--", config["name"], str(config["amount_usd"])], None


def _update_budget_words(given: dict[str, Any]) -> Words | None:
    if not isinstance(given["changes"], dict) or not given["changes"]:
        return None
    changes = dict(given["changes"])
    words = []
    if isinstance(changes.get("is_active"), bool):
        words = ["--active" if changes.pop("is_active") else "--inactive"]
    flags = _budget_flags(changes)
    return None if flags is None else (["budgets", "update", "--json", *words, *flags, "--", given["name"]], None)


def _remove_budget_words(given: dict[str, Any]) -> Words | None:
    return ["budgets", "remove", "--json", "--", given["name"]], None


def _list_budgets_words(given: dict[str, Any]) -> Words | None:
    return ["budgets", "list", "--json"], None


def _alerts_words(given: dict[str, Any]) -> Words | None:
    return ["budgets", "alerts", "--json", f"--since={given.get('time_range', '7 days')}"], None


def _report_words(given: dict[str, Any]) -> Words | None:
    flags = {"time_range": "--since", "group_by": "--by", "baseline": "--against", "time_zone": "--time-zone"}
    return ["report", "--json", *(f"{flags[key]}={value}" for key, value in given.items())], None


_COMMANDS: dict[str, Callable[[dict[str, Any]], Words | None]] = {
    "match": _match_words, "classify": _classify_words, "create_route": _create_words, "update_route": _update_words,
    "delete_route": _delete_words, "add_utterances": _change_utterances_words("--utterance"),
    "remove_utterances": _change_utterances_words("--drop"), "list_routes": _list_words, "team": _team_words,
    "assign": _assign_words, "optimize_budget": _budget_words, "route": _route_words,
    "create_budget": _create_budget_words, "update_budget": _update_budget_words,
    "remove_budget": _remove_budget_words, "list_budgets": _list_budgets_words, "budget_alerts": _alerts_words,
    "report": _report_words,
}  # fmt: skip
