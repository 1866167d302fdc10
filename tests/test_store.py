"""Products: atomic, checked, never unpickled."""

from __future__ import annotations

import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from ipbench.errors import BadProduct
from ipbench.store import atomic, read_json, read_tensors, tensors_digest, write_json, write_tensors


def test_json_round_trip(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"b": [1, 2.5, None], "a": {"c": "ü"}})
    assert read_json(path) == {"b": [1, 2.5, None], "a": {"c": "ü"}}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-9], "not readable as JSON"),
        (lambda text: text.replace('"aa"', '"ab"'), "checksum does not match"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "another format"),
        (lambda text: "[1]", "not a product"),
        (lambda text: "", "not readable as JSON"),
    ],
)
def test_damaged_json_is_named(tmp_path, damage, message):
    path = tmp_path / "a.json"
    write_json(path, {"x": 7, "y": "aa"})
    path.write_text(damage(path.read_text()))
    with pytest.raises(BadProduct, match=message) as error:
        read_json(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_missing_json(tmp_path):
    with pytest.raises(BadProduct, match="no such file"):
        read_json(tmp_path / "none.json")


def test_nan_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_atomic_leaves_the_old_file_on_error(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_tensors_round_trip(tmp_path):
    path = tmp_path / "a.safetensors"
    base = torch.arange(6.0)
    tensors = {"a": base[:3], "b": base.view(2, 3).T, "c": torch.tensor(True), "d": torch.zeros(0)}
    write_tensors(path, tensors, {"epoch": 3})
    found, facts = read_tensors(path)
    assert facts == {"epoch": 3} and found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert tensors_digest(found) == tensors_digest(tensors)


@pytest.mark.parametrize("place", [3, 60, 200, -3])
def test_a_flipped_byte_is_found(tmp_path, place):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": torch.arange(20.0)}, {"epoch": 3})
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadProduct, match=str(path)):
        read_tensors(path)


def test_a_pickle_is_not_opened(tmp_path):
    path = tmp_path / "a.safetensors"

    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(BadProduct, match="not readable"):
        read_tensors(path)


def test_digest_sees_names_types_and_shapes():
    base = {"a": torch.zeros(4)}
    others = [
        {"b": torch.zeros(4)},
        {"a": torch.zeros(2, 2)},
        {"a": torch.zeros(4, dtype=torch.int32)},
        {"a": torch.ones(4)},
    ]
    assert len({tensors_digest(tensors) for tensors in [base, *others]}) == 5


def test_products_are_plain_json(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    assert set(json.loads((tmp_path / "a.json").read_text())) == {"format", "checksum", "x"}


def test_tensors_are_read_from_one_file_while_another_process_writes_anew(tmp_path):
    """Each content has a size of its own, so that the header of one and the tensors of another cannot fit."""
    path = tmp_path / "state.safetensors"
    contents = [{"a": torch.full((50_000 + 1_000 * n,), float(n))} for n in range(4)]
    write_tensors(path, contents[0], {"n": 0})
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for n, tensors in enumerate(contents):
                write_tensors(path, tensors, {"n": n})

    with ThreadPoolExecutor() as pool:
        writing = pool.submit(write)
        try:
            seen = set()
            for _ in range(1000):
                tensors, facts = read_tensors(path)
                assert torch.equal(tensors["a"], contents[facts["n"]]["a"])
                seen.add(facts["n"])
        finally:
            stop.set()
        writing.result(timeout=60)
    assert len(seen) > 1
