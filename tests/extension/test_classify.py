"""Classifiers in SQL: trained from examples, chosen by every session, removed."""

from __future__ import annotations

import psycopg
import pytest

EXAMPLES = {
    "billing": [
        "I was charged twice", "Where is my invoice?", "The amount on the bill is wrong", "Send me a receipt",
        "Refund my last payment",
    ],
    "outage": [
        "The site is down", "Nothing loads since this morning", "Error 503 on every page",
        "The server does not answer", "Your service cannot be reached",
    ],
}  # fmt: skip
TEXTS = [text for texts in EXAMPLES.values() for text in texts]
CLASSES = [name for name, texts in EXAMPLES.items() for _ in texts]
TRAIN = "SELECT ruvector_train_classifier(%s::text[], %s::text[])"
CLASSIFY = "SELECT ruvector_classify_request('I was charged for a second month')"


def test_train_use_and_remove(db):
    shipped = db.one(CLASSIFY)
    made = db.one(
        "SELECT ruvector_train_classifier(%s::text[], %s::text[], 'desk', capabilities => %s::text[], seed => 3)",
        TEXTS, CLASSES, ["tools, records"] * 5 + [None] * 5,
    )  # fmt: skip
    assert (made["name"], made["classes"], made["capabilities"]) == (
        "desk",
        ["billing", "outage"],
        ["records", "tools"],
    )
    assert made["report"]["rows"] == 10
    assert made["report"]["class_counts"] == {"billing": 5, "outage": 5}
    found = db.one(CLASSIFY)
    assert found["top_category"] == "billing"
    assert {name for name, _ in found["capabilities"]} == {"tools", "records"}
    assert db.one("SELECT ruvector_use_classifier('shipped')") is True
    assert db.one(CLASSIFY) == shipped
    assert db.one("SELECT ruvector_use_classifier('desk')") is True
    assert db.one(CLASSIFY) == found
    assert db.one("SELECT ruvector_remove_classifier('desk')") is True
    assert db.one(CLASSIFY) == shipped


@pytest.mark.parametrize(
    ("statement", "arguments", "state", "words"),
    [
        (TRAIN, (TEXTS, CLASSES[1:]), "22023", "10 examples, 9 classes"),
        (TRAIN, (None, CLASSES), "22023", "examples is NULL"),
        (TRAIN, ([*TEXTS[:-1], None], CLASSES), "22023", "Example number 10 is NULL"),
        (TRAIN, (TEXTS, ["one"] * 10), "22023", "All examples are of class 'one'"),
        (TRAIN, (TEXTS, ["other", *["one"] * 9]), "22023", "one request only of: 'other'"),
        (TRAIN, ([TEXTS[0], *TEXTS[:-1]], [CLASSES[-1], *CLASSES[:-1]]), "22023", "in two classes"),
        ("SELECT ruvector_use_classifier('absent')", (), "42704", "absent"),
        ("SELECT ruvector_remove_classifier('absent')", (), "42704", "absent"),
        ("SELECT ruvector_use_classifier(NULL)", (), "22023", "NULL"),
    ],
)
def test_bad_input(db, statement, arguments, state, words):
    with pytest.raises(psycopg.Error, match=words) as caught:
        db.one(statement, *arguments)
    assert caught.value.sqlstate == state
