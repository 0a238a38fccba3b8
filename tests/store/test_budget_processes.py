"""64 clients of one SQLite file in several processes spend a budget to its end: never over it, and none gets stuck."""

from __future__ import annotations

import signal
import subprocess

import numpy as np
import pytest

from tests.store.test_processes import start
from tinydancer.budgets import Budgets
from tinydancer.service import TinyDancer

PROCESSES, THREADS = 4, 16

SPENDER = """
import sys, threading
import numpy as np
from tinydancer.service import TinyDancer

path, threads = sys.argv[1], int(sys.argv[2])
vector = np.ones(384, np.float32)
errors, made = [], []

def spend(dancer, thread):
    try:
        for i in range(1000):
            decision = dancer.route(embedding=vector, optimize_for="quality", on_no_match="null", key="team")
            if decision is None or not decision.estimated_cost:
                return
            made.append(decision.estimated_cost)
            if (i + thread) % 3 == 0:
                dancer.feedback(decision, cost_usd=decision.estimated_cost)
            elif (i + thread) % 7 == 0:
                dancer.feedback(decision, success=False, quality=0.9)  # or it would count as a bad answer
                made.pop()
    except BaseException as error:
        errors.append(error)

with TinyDancer(path) as dancer:
    sys.stdin.readline()  # until all are ready
    workers = [threading.Thread(target=spend, args=(dancer, n)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(repr(sum(made)))
sys.exit(repr(errors[:3]) if errors else 0)
"""

CRASHER = """
import os, sys
import numpy as np
from tinydancer.service import TinyDancer

with TinyDancer(sys.argv[1]) as dancer:
    dancer.store.insert_decisions = lambda rows: os.kill(os.getpid(), 9)  # between reserving and recording
    dancer.route(embedding=np.ones(384, np.float32), optimize_for="quality", key="team")
"""


def prepare(path, **more) -> None:
    with TinyDancer(path) as dancer:
        dancer.register_agent("dear", "llm", [], 0.03, 500.0, 0.95)
        dancer.register_agent("cheap", "llm", [], 0.002, 150.0, 0.75)
        dancer.register_agent("free", "tool", [], 0.0, 100.0, 0.4)
        Budgets(dancer).create("all", 20.0, "total", on_limit=more.pop("on_limit", "refuse"))
        Budgets(dancer).create("team", 15.0, "total", scope="key", scope_value="team", on_limit="free", **more)


@pytest.mark.parametrize("behaviour", ["refuse", "free"])
def test_64_clients_spend_a_budget_to_its_end(tmp_path, behaviour):
    path = tmp_path / "store.db"
    prepare(path, on_limit=behaviour)
    spenders = [start(SPENDER, path, THREADS, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(PROCESSES)]
    said = []
    for spender in spenders:
        assert spender.stdin is not None
        spender.stdin.write("go\n")
        spender.stdin.flush()
    for spender in spenders:
        out, _ = spender.communicate(timeout=120)
        assert spender.returncode == 0
        said.append(float(out))
    spent = sum(said)
    with TinyDancer(path) as dancer:
        # Some had stopped when others gave back what failed requests had reserved; one more client spends that.
        while (last := dancer.route(embedding=np.ones(384), optimize_for="quality", key="team")).estimated_cost:
            spent += last.estimated_cost
        assert 15.0 - 0.002 < spent <= 15.0 + 1e-6  # to the end, and not a request's cost over
        of_all, of_team = Budgets(dancer).list()
        for status in (of_all, of_team):
            assert status.spent_usd + status.reserved_usd == pytest.approx(spent, abs=1e-9)
        ((open_usd,),) = dancer.store._database.fetch(  # type: ignore[attr-defined]
            "SELECT sum(amount_usd) FROM budget_reservations WHERE budget_id = ?",
            (dancer.store.get_budget("all").budget_id,),
        )
        assert open_usd == pytest.approx(of_all.reserved_usd, abs=1e-9)
        assert [a.share for a in Budgets(dancer).alerts() if a.budget == "team"] == [1.0, 0.8, 0.5]


def test_a_crash_between_reserving_and_recording_is_given_back_where_that_was_said(tmp_path):
    path = tmp_path / "store.db"
    prepare(path, release_after_s=60)
    crashed = start(CRASHER, path)
    assert crashed.wait(timeout=60) == -signal.SIGKILL
    now = [0.0]
    with TinyDancer(path) as dancer:
        clock = dancer._clock
        dancer._clock = lambda: clock() + now[0]
        budgets = Budgets(dancer)
        reserved = [status.reserved_usd for status in budgets.list()]
        assert reserved[0] == reserved[1] > 0
        assert dancer.list_decisions() == []
        now[0] = 61.0
        assert [status.reserved_usd for status in budgets.list()] == [reserved[0], 0.0]
