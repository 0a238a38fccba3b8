"""Model files: what goes in comes out, mapped and unchanged, and anything else is refused with a reason."""

from __future__ import annotations

import json
import os
import stat
import threading

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinydancer.errors import ArtifactError, InvalidInputError, NotFoundError
from tinydancer.model import artifact as module
from tinydancer.model.artifact import FORMAT_VERSION, load_artifact, save_artifact


@pytest.fixture
def tensors():
    rng = np.random.default_rng(1)
    return {
        "table": rng.integers(-127, 127, (50, 7)).astype(np.int8),
        "scale": rng.random(50).astype(np.float32),
        "wide": rng.random((3, 5)),
        "one": np.float32(0.25),
        "none": np.zeros((0, 4), dtype=np.float32),
    }


@pytest.fixture
def saved(tmp_path, tensors):
    path = tmp_path / "model.safetensors"
    save_artifact(path, tensors, kind="table", metadata={"epochs": 3, "über": ["ä", None, 0.5]})
    return path


def rewrite(path, change_head=None, change_header=None, data=None):
    """Write the file again with a changed header or changed data, as a broken or a newer program might."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    if change_head:
        header["__metadata__"].update(change_head)
        header["__metadata__"] = {k: v for k, v in header["__metadata__"].items() if v is not None}
    if change_header:
        change_header(header)
    text = json.dumps(header).encode()
    body = raw[8 + length :] if data is None else data
    # A new file, as a copy would be: the old one's identity is remembered as verified.
    path.unlink()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def test_what_goes_in_comes_out(saved, tensors):
    loaded = load_artifact(saved, kind="table")
    assert loaded.kind == "table"
    assert loaded.metadata == {"epochs": 3, "über": ["ä", None, 0.5]}
    assert loaded.tensors.keys() == tensors.keys()
    for name, expected in tensors.items():
        assert loaded.tensors[name].dtype == expected.dtype
        assert loaded.tensors[name].shape == expected.shape
        np.testing.assert_array_equal(loaded.tensors[name], expected)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20).filter(lambda name: name != "__metadata__"),
        hnp.arrays(
            st.sampled_from([np.float32, np.float64, np.int8, np.uint16, np.int64, np.bool_, np.float16]),
            hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        ),
        max_size=4,
    )
)
def test_any_arrays_under_any_names(tmp_path, tensors):
    path = tmp_path / "any"
    digest = save_artifact(path, tensors, kind="any")
    loaded = load_artifact(path, kind="any")
    assert loaded.sha256 == digest
    assert loaded.tensors.keys() == tensors.keys()
    for name, expected in tensors.items():
        np.testing.assert_array_equal(loaded.tensors[name], expected)
        assert loaded.tensors[name].dtype == expected.dtype


def test_other_byte_order_and_layout_are_stored_by_value(tmp_path):
    array = np.asfortranarray(np.arange(12, dtype=">f4").reshape(3, 4))
    save_artifact(tmp_path / "a", {"a": array[:, ::2]}, kind="x")
    np.testing.assert_array_equal(load_artifact(tmp_path / "a", kind="x").tensors["a"], array[:, ::2])


def test_the_safetensors_library_reads_our_files(saved, tensors):
    theirs = safetensors.numpy.load_file(saved)
    assert theirs.keys() == tensors.keys()
    for name, expected in tensors.items():
        np.testing.assert_array_equal(theirs[name], expected)


def test_arrays_lie_in_the_mapped_file(saved):
    table = load_artifact(saved, kind="table").tensors["table"]
    assert not table.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        table[0, 0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        table.flags.writeable = True
    # A copy would not see a byte that changes in the file behind its back; a mapping does.
    raw = saved.read_bytes()
    offset = raw.index(table.tobytes())
    with saved.open("r+b") as file:
        file.seek(offset)
        file.write(bytes([(int(table[0, 0]) + 5) % 128]))
    assert table[0, 0] == (raw[offset] + 5) % 128


def test_every_tensor_starts_at_a_multiple_of_its_item_size(saved):
    for array in load_artifact(saved, kind="table").tensors.values():
        assert array.flags.aligned


def test_the_hash_and_the_file_know_content_not_place_nor_order(tmp_path, tensors):
    first = save_artifact(tmp_path / "a", tensors, kind="table", metadata={"x": 1, "y": 2})
    again = save_artifact(tmp_path / "b", dict(reversed(tensors.items())), kind="table", metadata={"y": 2, "x": 1})
    assert first == again == load_artifact(tmp_path / "b", kind="table").sha256
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    different = {
        save_artifact(
            tmp_path / "c", {**tensors, "scale": tensors["scale"] + 1}, kind="table", metadata={"x": 1, "y": 2}
        ),
        save_artifact(tmp_path / "c", tensors, kind="other", metadata={"x": 1, "y": 2}),
        save_artifact(tmp_path / "c", tensors, kind="table", metadata={"x": 1, "y": 3}),
        save_artifact(
            tmp_path / "c",
            {**tensors, "table": tensors["table"].reshape(7, 50)},
            kind="table",
            metadata={"x": 1, "y": 2},
        ),
    }
    assert len(different) == 4
    assert first not in different


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(NotFoundError, match="no model file"):
        load_artifact(tmp_path / "nothing", kind="table")


def test_a_folder_is_no_model(tmp_path):
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_artifact(tmp_path, kind="table")


def test_another_kind_is_refused_and_both_are_named(saved):
    with pytest.raises(ArtifactError, match=r"'table'; expected kind 'fastgrnn'"):
        load_artifact(saved, kind="fastgrnn")


def test_every_truncation_is_refused(saved, tmp_path):
    raw = saved.read_bytes()
    for size in [*range(0, len(raw), 41), len(raw) - 1]:
        short = tmp_path / f"short-{size}"
        short.write_bytes(raw[:size])
        with pytest.raises(ArtifactError):
            load_artifact(short, kind="table")


def test_trailing_bytes_are_refused(saved):
    rewrite(saved, data=saved.read_bytes()[-1000:] + b"more")
    with pytest.raises(ArtifactError):
        load_artifact(saved, kind="table")


def test_every_changed_byte_is_found(saved, tmp_path):
    raw = saved.read_bytes()
    rng = np.random.default_rng(2)
    length = int.from_bytes(raw[:8], "little")
    text_end = 8 + len(raw[8 : 8 + length].rstrip())
    # Blanks that pad the header mean nothing, so they alone may change.
    meaningful = [i for i in range(len(raw)) if i < text_end or i >= 8 + length]
    for position in rng.choice(meaningful, 200, replace=False):
        changed = bytearray(raw)
        changed[position] ^= 1 << int(rng.integers(8))
        copy = tmp_path / f"changed-{position}"
        copy.write_bytes(changed)
        try:
            loaded = load_artifact(copy, kind="table")
        except ArtifactError:
            continue
        # What still loads is a change of the header that changes no meaning (the case of a letter in an escape).
        assert loaded.sha256 == load_artifact(saved, kind="table").sha256


def test_tampering_in_an_already_verified_place_is_found(saved):
    load_artifact(saved, kind="table")
    raw = bytearray(saved.read_bytes())
    raw[-3] ^= 1
    saved.write_bytes(raw)
    os.utime(saved, ns=(0, 12345))
    with pytest.raises(ArtifactError, match="changed after it was saved"):
        load_artifact(saved, kind="table")


def test_an_unchanged_file_is_hashed_once(saved, monkeypatch):
    load_artifact(saved, kind="table")
    calls = []
    real = module._digest

    def counted(*given):
        calls.append(1)
        return real(*given)

    monkeypatch.setattr(module, "_digest", counted)
    load_artifact(saved, kind="table")
    assert not calls
    os.utime(saved, ns=(0, 77))
    load_artifact(saved, kind="table")
    assert len(calls) == 1


def test_the_memory_of_verified_files_is_bounded(saved, monkeypatch):
    monkeypatch.setattr(module, "_MAX_DIGESTS", 2)
    for i in range(5):
        os.utime(saved, ns=(0, 1000 + i))
        load_artifact(saved, kind="table")
        assert len(module._digests) <= 2


def test_a_newer_format_says_which(saved):
    rewrite(saved, {"format_version": str(FORMAT_VERSION + 1)})
    with pytest.raises(ArtifactError, match=rf"version {FORMAT_VERSION + 1}.*up to {FORMAT_VERSION}.*Upgrade"):
        load_artifact(saved, kind="table")


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"format": None},
        {"format_version": "one"},
        {"format_version": None},
        {"format_version": "9" * 5000},
        {"kind": None},
        {"sha256": None},
        {"metadata": None},
        {"metadata": "{}"},
        {"sha256": "0" * 64},
    ],
)
def test_a_changed_head_is_refused(saved, change):
    rewrite(saved, change)
    with pytest.raises(ArtifactError):
        load_artifact(saved, kind="table")


@pytest.mark.parametrize(
    "spec",
    [
        7,
        {},
        {"dtype": "PICKLE", "shape": [50], "data_offsets": [124, 324]},
        {"dtype": ["F32"], "shape": [50], "data_offsets": [124, 324]},
        {"dtype": "F32", "shape": [-50], "data_offsets": [124, 324]},
        {"dtype": "F32", "shape": [True], "data_offsets": [124, 324]},
        {"dtype": "F32", "shape": [49], "data_offsets": [124, 324]},
        {"dtype": "F32", "shape": "50", "data_offsets": [124, 324]},
        {"dtype": "F32", "shape": [50], "data_offsets": [124]},
        {"dtype": "F32", "shape": [50], "data_offsets": [324, 124]},
        {"dtype": "F32", "shape": [1] * 40 + [50], "data_offsets": [124, 324]},
        {"dtype": "F32", "shape": [2**61, 2**61], "data_offsets": [124, 324]},
        {"dtype": "F32", "shape": [50], "data_offsets": [120, 320]},
        {"dtype": "F32", "shape": [50], "data_offsets": [100000, 100200]},
        {"dtype": "F32", "shape": [50], "data_offsets": [0, 200]},
    ],
)
def test_a_tensor_that_does_not_fit_its_description_is_refused(saved, spec):
    rewrite(saved, change_header=lambda header: header.update(scale=spec))
    with pytest.raises(ArtifactError):
        load_artifact(saved, kind="table")


@pytest.mark.parametrize("second", [(0, 4), (8, 12)], ids=["overlap", "hole"])
def test_overlaps_and_holes_are_refused_even_with_a_matching_hash(tmp_path, second):
    path = tmp_path / "m"
    arrays = {"a": np.zeros(1, np.float32), "b": np.zeros(1, np.float32)}
    digest = save_artifact(path, arrays, kind="table")
    rewrite(
        path,
        {"sha256": digest},
        lambda header: header["b"].update(data_offsets=list(second)),
        data=bytes(second[1]),
    )
    with pytest.raises(ArtifactError, match="do not follow each other"):
        load_artifact(path, kind="table")


def test_bytes_that_no_tensor_claims_are_refused(saved):
    rewrite(saved, change_header=lambda header: header.pop("table"))
    with pytest.raises(ArtifactError, match=r"tensors (take|do not follow)"):
        load_artifact(saved, kind="table")


@pytest.mark.parametrize(
    "text", [b"no json", b"[1]", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"a": ' + b"1" * 9999 + b"}"]
)
def test_a_header_that_is_no_object_is_refused(tmp_path, text):
    path = tmp_path / "bad"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(ArtifactError):
        load_artifact(path, kind="table")


def test_a_pickle_is_refused_not_run(tmp_path):
    import pickle

    path = tmp_path / "model.pkl"
    marker = tmp_path / "ran"
    payload = type("Payload", (), {"__reduce__": lambda self: (os.mkdir, (str(marker),))})()
    path.write_bytes(pickle.dumps(payload))
    with pytest.raises(ArtifactError):
        load_artifact(path, kind="table")
    assert not marker.exists()


@pytest.mark.parametrize("metadata", ["no json", "[1, 2]", "[" * 100_000])
def test_metadata_that_is_no_object_is_refused_even_with_a_matching_hash(tmp_path, metadata):
    path = tmp_path / "m"
    save_artifact(path, {}, kind="table")
    digest = module._digest(FORMAT_VERSION, "table", metadata, {}, {})
    rewrite(path, {"metadata": metadata, "sha256": digest})
    with pytest.raises(ArtifactError, match="metadata"):
        load_artifact(path, kind="table")


def test_a_file_of_the_plain_library_is_not_ours(tmp_path):
    path = tmp_path / "foreign.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(3, np.float32)}, path)
    with pytest.raises(ArtifactError, match="does not say"):
        load_artifact(path, kind="table")


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({"": np.zeros(1)}, {}),
        ({3: np.zeros(1)}, {}),
        ({"__metadata__": np.zeros(1)}, {}),
        ({"a": np.array(["text"])}, {}),
        ({"a": np.array([object()])}, {}),
        ({"a": np.zeros(1, np.complex64)}, {}),
        ({}, {"x": float("nan")}),
        ({}, {"x": object()}),
        ({}, {"x": "y" * 5_000_000}),
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_is_written(tmp_path, tensors, metadata):
    with pytest.raises(InvalidInputError):
        save_artifact(tmp_path / "a", tensors, kind="x", metadata=metadata)
    assert list(tmp_path.iterdir()) == []


def test_saving_into_a_missing_folder_says_so(tmp_path):
    with pytest.raises(ArtifactError, match="cannot be written"):
        save_artifact(tmp_path / "no" / "where", {}, kind="x")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(saved, monkeypatch):
    before = saved.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match="No space left"):
        save_artifact(saved, {"a": np.ones(9)}, kind="table")
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_files_have_the_usual_mode(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    save_artifact(tmp_path / "a", {}, kind="x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_readers_of_a_file_that_is_replaced_see_one_version_whole(tmp_path):
    path = tmp_path / "m"
    save_artifact(path, {"a": np.full(5000, 0)}, kind="x", metadata={"v": 0})
    done = threading.Event()
    problems: list[object] = []

    def read():
        while not done.is_set():
            try:
                loaded = load_artifact(path, kind="x")
            except Exception as error:
                problems.append(error)
                return
            if set(loaded.tensors["a"].tolist()) != {loaded.metadata["v"]}:
                problems.append(loaded.metadata)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for version in range(40):
        save_artifact(path, {"a": np.full(5000, version)}, kind="x", metadata={"v": version})
    done.set()
    for reader in readers:
        reader.join()
    assert problems == []
