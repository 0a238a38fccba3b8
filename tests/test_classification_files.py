"""Labelled requests from files, and what is refused before anything is learnt from them."""

from __future__ import annotations

import json

import pytest

from tinydancer.classification_files import Example, checked_examples, examples_of
from tinydancer.errors import InvalidInputError, InvalidNameError

EXPECTED = [Example("Hello, you", "talk"), Example('Say "hi"', "talk", ("tools", "web search"))]


@pytest.mark.parametrize(
    "text",
    [
        'class,text,capabilities\ntalk,"Hello, you",\ntalk,"Say ""hi""",tools; web search\n',
        'text\tlabel\tcapabilities\nHello, you\ttalk\t\nSay "hi"\ttalk\ttools,web search\n',
        '{"category": "talk", "request": "Hello, you"}\n\n'
        '{"class": "talk", "text": "Say \\"hi\\"", "capabilities": ["tools", "web search"]}',
        json.dumps([
            {"class": "talk", "text": "Hello, you"},
            {"class": "talk", "text": 'Say "hi"', "capabilities": "tools, web search"},
        ]),
    ],
)  # fmt: skip
def test_every_shape_gives_the_same_examples(text):
    assert examples_of(text, what="The file") == EXPECTED


def test_line_feeds_in_texts():
    assert examples_of('class,text\na,"one\ntwo"\n', what="F")[0].text == "one\ntwo"
    assert examples_of("class\ttext\na\tone\\ntwo\\\\n\n", what="F")[0].text == "one\ntwo\\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "The file holds no examples"),
        ("class,text\n", "The file holds no examples"),
        ("[]", "The file holds no examples"),
        ("[1]", "example 1: it is 1; expected an object"),
        ("kind,text\na,b\n", "line 2: no class is given"),
        ("class,text\na,\n", "line 2: no text is given"),
        ("class,text\na,b\n,c\n", "line 3: no class is given"),
        ("class,text\na,b, c\n", "line 2, has more fields"),
        ('class,text\na,"b\n', "no table"),
        ("[{", "no JSON"),
        ('{"class": "a", "text": "b"}\n{', "line 2, is no JSON"),
        ('{"class": "a", "text": 3}', "no text is given"),
    ],
)
def test_bad_files_are_refused_with_the_line(text, words):
    with pytest.raises(InvalidInputError, match=words):
        examples_of(text, what="The file")


def test_bad_names_are_refused_with_the_line():
    with pytest.raises(InvalidNameError, match=r"F, line 2: The class .* blanks"):
        examples_of("class,text\n a,b\n", what="F")
    with pytest.raises(InvalidInputError, match="F, line 1: capabilities is 7"):
        examples_of('{"class": "a", "text": "b", "capabilities": 7}', what="F")


GOOD = [Example("a", "x"), Example("b", "x"), Example("c", "y"), Example("d", "y", ("tools",))]


def test_good_examples_pass_and_repeated_ones_count_once():
    assert checked_examples(GOOD) == GOOD
    assert checked_examples([*GOOD, Example(" a ", "x")]) == GOOD


@pytest.mark.parametrize(
    ("examples", "words"),
    [
        ([], "no examples"),
        (GOOD[:2], "All examples are of class 'x'"),
        (GOOD[:3], "one request only of: 'y'"),
        ([*GOOD[:3], Example("c ", "y")], "one request only of: 'y'"),
        ([*GOOD, Example("a", "y")], "'a' is in two classes, 'x' and 'y'"),
        ([*GOOD, Example("e", "Y")], "classes 'y' and 'Y' differ in capitals only"),
        ([*GOOD, Example("e", "y", ("Tools",))], "capabilities 'tools' and 'Tools'"),
    ],
)
def test_examples_that_cannot_be_learnt_from_are_refused(examples, words):
    with pytest.raises(InvalidInputError, match=words):
        checked_examples(examples)
