"""The static embedder: unit vectors, always the same, for any text and from any thread."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tinydancer.embedding import Embedder, StaticEmbedder
from tinydancer.embedding.static import DATA_DIRECTORY, KIND, LONG_TEXT_CHARS, TABLE_FILE, TOKENIZER_FILE, excerpt
from tinydancer.errors import InvalidTextError
from tinydancer.model.artifact import load_artifact
from tinydancer.types import MINILM_SPACE

STATIC = StaticEmbedder()
VARIED = [
    "Write a Python function that merges two sorted lists.",
    "a",
    "   leading and trailing blanks \n\t ",
    "Übersetze „Straße“ ins Französische, bitte.",
    "彼はなぜ帰ったのですか",
    "🎉🎉🎉",
    "def f(x):\n    return x ** 2  # square\n",
    "coding, reasoning, analysis",
    "[CLS] [SEP] [PAD]",
    "\u200b\u200d",
    "!" * 300,
    "why " * 3000,
    "x" * 10_000,
    "SELECT name FROM agents WHERE cost < 0.01;",
]


def lengths(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(vectors.astype(np.float64), axis=1))


def test_it_keeps_the_protocol(static: StaticEmbedder) -> None:
    assert isinstance(static, Embedder)
    assert static.name == "static"
    assert static.space == MINILM_SPACE


def test_vectors_are_float32_rows_of_unit_length(static: StaticEmbedder) -> None:
    vectors, counts = static.embed(VARIED)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(VARIED), 384)
    assert vectors.flags.c_contiguous
    np.testing.assert_allclose(lengths(vectors), 1.0, atol=1e-6)
    assert counts.dtype == np.float64
    assert (counts >= 1.0).all()


def test_no_texts_give_arrays_of_length_zero(static: StaticEmbedder) -> None:
    vectors, counts = static.embed([])
    assert vectors.shape == (0, 384)
    assert counts.shape == (0,)


def test_the_formula_holds_against_an_independent_sum_in_float64() -> None:
    tensors = load_artifact(DATA_DIRECTORY / TABLE_FILE, kind=KIND).tensors
    tokenizer = Tokenizer.from_file(str(DATA_DIRECTORY / TOKENIZER_FILE))
    for text in ("Explain the offside rule with salt and pepper shakers.", "def add(a, b): return a + b", "naïve café"):
        total = np.zeros(384)
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        for token in ids:
            scale, weight = float(tensors["scales"][token]), float(tensors["weights"][token])
            total += weight * scale * tensors["table"][token].astype(np.float64)
        vector, count = STATIC.embed_one(text)
        np.testing.assert_allclose(vector, total / np.linalg.norm(total), atol=2e-6)
        assert count == len(ids)


def test_a_text_has_the_same_vector_alone_and_in_a_batch_of_any_order(static: StaticEmbedder) -> None:
    batch, counts = static.embed(VARIED)
    backwards, _ = static.embed(VARIED[::-1])
    for i, text in enumerate(VARIED):
        vector, count = static.embed_one(text)
        np.testing.assert_allclose(batch[i], vector, atol=1e-6)
        np.testing.assert_allclose(backwards[len(VARIED) - 1 - i], vector, atol=1e-6)
        assert count == counts[i]


def test_batches_larger_than_a_chunk_agree_with_single_texts(static: StaticEmbedder) -> None:
    texts = [f"request number {i} about {'invoices ' * (i % 40)}" for i in range(700)]
    batch = static.embed(texts).vectors
    alone = np.stack([static.embed_one(text)[0] for text in texts])
    np.testing.assert_allclose(batch, alone, atol=1e-6)


def test_the_same_text_gives_the_same_bits_every_time_and_from_another_embedder(static: StaticEmbedder) -> None:
    other = StaticEmbedder()
    for text in VARIED:
        first = static.embed_one(text)[0]
        assert first.tobytes() == static.embed_one(text)[0].tobytes() == other.embed_one(text)[0].tobytes()


WORDS = st.sampled_from(
    ["The", "hello,", "don't", "(x+1)", "antidisestablishmentarianism", "[MASK]", "[mask]", "a_b", "3.14159", "zzqqxv",
     "caf\u00e9", "\u5f7c", "tab\there", "line\r\nbreak", "bell\x07", "\x0b", "\x1c", "\u00a0", "#$%", "y" * 101]
)  # fmt: skip


@given(st.lists(st.lists(WORDS | st.text(max_size=12), max_size=8).map(" ".join), min_size=1, max_size=5))
def test_tokens_are_the_tokenizers(texts: list[str]) -> None:
    """Whichever of them are looked up, and whichever were met before."""
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    tokenizer = Tokenizer.from_file(str(DATA_DIRECTORY / TOKENIZER_FILE))
    for embedder in (STATIC, StaticEmbedder()):
        for _ in range(2):
            assert embedder._tokenize(texts) == [tokenizer.encode(t, add_special_tokens=False).ids for t in texts]


def test_pieces_of_words_are_the_tokenizers() -> None:
    """Of thousands of words put together at random from what the vocabulary holds and from single letters."""
    tokenizer, draw = Tokenizer.from_file(str(DATA_DIRECTORY / TOKENIZER_FILE)), random.Random(7)
    vocabulary = sorted(tokenizer.get_vocab())
    parts = [piece.removeprefix("##") for piece in draw.sample(vocabulary, 2000) if piece.isascii() and piece.isalnum()]
    words = ["".join(draw.choices([*parts, *"qzxj0179"], k=draw.randint(1, 4))) for _ in range(5000)]
    words += ["a" * 99, "a" * 100, "a" * 101, "qzx" * 33]
    expected = [encoding.ids for encoding in tokenizer.encode_batch(words, add_special_tokens=False)]
    assert STATIC._tokenize(words) == expected
    assert sum(len(ids) > 1 for ids in expected) > 2000


def test_the_tokenizers_library_is_loaded_when_a_text_needs_it() -> None:
    script = (
        "import sys\n"
        "from tinydancer.embedding import StaticEmbedder\n"
        "embedder = StaticEmbedder()\n"
        "for text in ('Prove Fermat\\'s little theorem: a^p = a (mod p).', 'caf\u00e9', '[MASK]'):\n"
        "    embedder.embed([text])\n"
        "    print('tokenizers' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True"]


def test_words_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinydancer.embedding.static.KEPT_WORDS", 50)
    embedder, tokenizer = StaticEmbedder(), Tokenizer.from_file(str(DATA_DIRECTORY / TOKENIZER_FILE))
    for number in range(200):
        text = f"zq{number}x vb{number}w {'long' * 20}{number}"
        assert embedder._tokenize([text]) == [tokenizer.encode(text, add_special_tokens=False).ids]
        assert len(embedder._pieces) <= 50
        assert not any(len(word) > 32 for word in embedder._pieces)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=80), min_size=1, max_size=6))
def test_any_unicode_text_gives_a_finite_unit_vector(texts: list[str]) -> None:
    vectors, counts = STATIC.embed(texts)
    np.testing.assert_allclose(lengths(vectors), 1.0, atol=1e-5)
    assert np.isfinite(counts).all()
    assert (counts >= 1.0).all()
    for text, row in zip(texts, vectors, strict=True):
        np.testing.assert_allclose(STATIC.embed_one(text)[0], row, atol=2e-6)


@pytest.mark.parametrize("text", ["", "   ", "\u200d", "[CLS]", "[PAD][SEP]"])
def test_text_without_a_token_of_weight_gets_the_unknown_tokens_vector(static: StaticEmbedder, text: str) -> None:
    unknown = static.embed_one("[UNK]")[0]
    np.testing.assert_allclose(static.embed_one(text)[0], unknown, atol=1e-6)
    np.testing.assert_allclose(static.embed([text, "hello"]).vectors[0], unknown, atol=1e-6)


def test_a_vector_handed_out_may_be_changed_without_harm(static: StaticEmbedder) -> None:
    before = static.embed_one("")[0].copy()
    static.embed_one("")[0][:] = 7.0
    np.testing.assert_array_equal(static.embed_one("")[0], before)


def test_white_space_and_case_do_not_matter(static: StaticEmbedder) -> None:
    plain = static.embed_one("translate this contract into spanish")[0]
    np.testing.assert_allclose(static.embed_one("  Translate\nthis\t contract into   Spanish ")[0], plain, atol=1e-6)


def test_text_that_is_no_unicode_is_an_error_of_the_tree(static: StaticEmbedder) -> None:
    with pytest.raises(InvalidTextError, match="no valid Unicode"):
        static.embed_one("lone \ud800 surrogate")
    with pytest.raises(InvalidTextError, match="no valid Unicode"):
        static.embed(["fine", "lone \ud800 surrogate"])


# Long text


def test_both_ends_of_a_long_text_matter_and_its_middle_does_not(static: StaticEmbedder) -> None:
    filler = "The weather report of the day follows. " * 400
    question = "Which of these court rulings concerns tenancy law, and what did the judge decide about the rent? " * 3
    base = static.embed_one(filler)[0]
    assert float(base @ static.embed_one(question + filler)[0]) < 0.999
    assert float(base @ static.embed_one(filler + question)[0]) < 0.999
    assert float(base @ static.embed_one(filler + question + filler)[0]) > 0.9999


def test_tokens_of_a_long_text_are_scaled_by_its_characters(static: StaticEmbedder) -> None:
    exact = len(Tokenizer.from_file(str(DATA_DIRECTORY / TOKENIZER_FILE)).encode("river bank " * 5000).ids) - 2
    estimated = static.embed_one("river bank " * 5000)[1]
    assert estimated == pytest.approx(exact, rel=0.01)
    assert static.embed(["river bank " * 5000]).token_counts[0] == estimated


def test_an_excerpt_is_cut_at_white_space_and_short_text_is_left_alone() -> None:
    text = "word" * 10 + " "
    long = text * 300
    part = excerpt(long)
    assert len(part) <= LONG_TEXT_CHARS + 1
    assert set(part.split()) == {"word" * 10}
    assert excerpt(long[:LONG_TEXT_CHARS]) is long[:LONG_TEXT_CHARS] or len(long[:LONG_TEXT_CHARS]) == LONG_TEXT_CHARS
    assert excerpt("z" * 5000) == "z" * 2048 + " " + "z" * 2048
    exact = "ab " * 3000
    assert set(excerpt(exact).split()) == {"ab"}


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.sampled_from([" ", "\n", " \t "]))
def test_every_word_of_an_excerpt_is_a_word_of_the_text(word_lengths: list[int], blank: str) -> None:
    words = [chr(97 + i % 26) * n for i, n in enumerate(word_lengths)]
    text = blank.join(words) + blank
    text *= LONG_TEXT_CHARS // len(text) + 2
    assert LONG_TEXT_CHARS - 100 < len(excerpt(text)) <= LONG_TEXT_CHARS + 1
    assert set(excerpt(text).split()) <= set(words)


def test_a_million_characters_take_no_longer_than_their_ends(static: StaticEmbedder) -> None:
    vector, count = static.embed_one("invoice overdue " * 62_500)
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-6)
    assert count > 100_000


# Meaning


@pytest.mark.parametrize(
    ("request_", "paraphrase", "unrelated"),
    [
        ("How do I reset my password?", "I forgot my login password and want a new one", "Recipe for apple pie"),
        ("Write a Python function to sort a list", "code that orders an array in Python", "What are symptoms of flu?"),
        ("Is my landlord allowed to raise the rent?", "tenant rights when rent goes up", "Solve x^2 - 4 = 0"),
        ("Solve the equation 3x + 5 = 20", "find x if 3x plus 5 equals 20", "Translate this letter into French"),
        ("Translate the text into Spanish", "put this paragraph into Spanish", "My bicycle tyre is flat"),
        ("My parcel never arrived", "the package was not delivered", "Prove that there are infinitely many primes"),
        ("Tell me a joke", "say something funny", "Configure a PostgreSQL replica"),
        ("What causes diabetes?", "why do people get high blood sugar disease", "Plan a trip to Kyoto"),
    ],
)
def test_a_paraphrase_is_nearer_than_another_topic(
    static: StaticEmbedder, request_: str, paraphrase: str, unrelated: str
) -> None:
    a, b, c = static.embed([request_, paraphrase, unrelated]).vectors
    assert float(a @ b) > float(a @ c) + 0.15


def test_capabilities_find_their_requests(static: StaticEmbedder) -> None:
    agents = [
        "coding, programming, debugging",
        "legal analysis, contracts, law",
        "translation, languages, multilingual",
    ]
    requests = [
        "Fix the bug in this Java class",
        "Which clause of the lease covers early termination?",
        "Say 'good evening, everyone' in Portuguese",
    ]
    similarity = static.embed(requests).vectors @ static.embed(agents).vectors.T
    assert similarity.argmax(axis=1).tolist() == [0, 1, 2]


# Threads, processes, start-up


def test_sixteen_threads_get_what_one_gets(static: StaticEmbedder) -> None:
    texts = VARIED * 8
    expected = [static.embed_one(text)[0].tobytes() for text in texts]
    batch = static.embed(VARIED).vectors.tobytes()
    with ThreadPoolExecutor(16) as pool:
        rounds = [pool.submit(lambda: [static.embed_one(t)[0].tobytes() for t in texts]) for _ in range(16)]
        batches = [pool.submit(static.embed, VARIED) for _ in range(16)]
        assert all(one.result() == expected for one in rounds)
        assert all(one.result().vectors.tobytes() == batch for one in batches)


def _digest_in_child(texts: list[str], answers: multiprocessing.queues.SimpleQueue[bytes]) -> None:
    answers.put(STATIC.embed(texts).vectors.tobytes())


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_an_embedder_made_before_a_fork_works_in_the_child() -> None:
    expected = STATIC.embed(VARIED).vectors.tobytes()
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_digest_in_child, args=(VARIED, answers))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert answers.get() == expected


def test_importing_the_package_loads_no_library_behind_an_embedder() -> None:
    code = (
        "import sys, tinydancer.embedding; heavy = {'tokenizers', 'safetensors', 'httpx', 'sentence_transformers'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "COVERAGE_RUN": ""}
    )
    assert run.stdout.strip() == "[]"
