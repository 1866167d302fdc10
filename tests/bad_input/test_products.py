"""Files that ipbench wrote, or should have written: results folders, records, states, ends, packed nets."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ipbench.cli.main import main
from ipbench.spec import canonical_json
from tests.bad_input.refusing import Case, Content, case, check, everything, lay

TRAIN = "--model lenet-300-100 --recipe epochs=1 --recipe warmup=0 --recipe train_examples=200"
YAML = """datasets: digits
models: lenet-300-100
recipe: {epochs: 1, warmup: 0, train_examples: 200}
methods: [dense, ft]
sparsities: 0.5
spaces: sp
seeds: 1
"""
#: A protocol-0 pickle that makes a file named `pwned` when it is loaded.
PICKLE = b"cos\nsystem\n(S'touch pwned'\ntR."


def product(**values: Any) -> str:
    """A JSON product whose checksum is right."""
    digest = hashlib.sha256(canonical_json(values).encode()).hexdigest()
    return json.dumps({"format": 1, "checksum": digest, **values})


def packed(change: dict[str, Any] | None = None, *, header: bytes | None = None, version: int = 1) -> bytes:
    """A packed net without a body whose checksum is right."""
    good = {"dataset": "digits", "model": "small-vgg", "run": "0" * 12, "seed": 0, "init": "kaiming_normal",
            "space": "sp", "values": "fp32", "layers": []}  # fmt: skip
    text = json.dumps({**good, **(change or {})}).encode() if header is None else header
    content = b"IPBPACK\0" + version.to_bytes(2, "little") + len(text).to_bytes(4, "little") + text
    return content + hashlib.sha256(content).digest()


def folder(id: str, command: str, files: dict[str, Content], *says: str) -> Case:
    return case(f"{command}-{id}", f"{command} r", *says, files=files)


CELL = {"dataset": "digits", "model": "small-vgg", "method": "snip", "family": "x", "space": "sp", "off": "zero",
        "sparsity": "0.5", "allocation": "global", "basis": {}, "options": {}, "recipe": {}, "mode": "strict",
        "pair": "x", "seeds": [0]}  # fmt: skip

FOLDERS = [
    *(
        folder(f"{id}-folder", command, files, "r: not an experiment's folder", "grid.json", "run the experiment first")
        for command in ("collect", "tables", "figures", "summary", "verify")
        for id, files in (("no", {}), ("other", {"r/notes.txt": "mine"}), ("file-as", {"r": "mine"}))
    ),
    folder("grid-is-a-folder", "tables", {"r/grid.json": None}, "r: not an experiment's folder"),
    folder("grid-empty", "collect", {"r/grid.json": ""}, "r/grid.json", "not readable as JSON", "delete it"),
    folder("grid-pickle", "collect", {"r/grid.json": PICKLE}, "r/grid.json", "not readable as JSON"),
    folder("grid-of-others", "tables", {"r/grid.json": "{}"}, "r/grid.json", "not a product of ipbench"),
    folder("grid-list", "figures", {"r/grid.json": "[1]"}, "r/grid.json", "not a product of ipbench"),
    folder("grid-deep", "collect", {"r/grid.json": "[" * 100_000}, "r/grid.json", "not readable as JSON"),
    folder("grid-nan", "collect", {"r/grid.json": '{"a": NaN, "checksum": 1}'}, "r/grid.json", "not readable as JSON"),
    folder("grid-altered", "collect", {"r/grid.json": product(name="x", cells=[]).replace('"x"', '"y"')},
           "r/grid.json", "checksum does not match"),
    folder("grid-format", "collect", {"r/grid.json": product(a=1).replace('"format": 1', '"format": 2')},
           "r/grid.json", "another format than 1"),
    folder("grid-without-cells", "collect", {"r/grid.json": product(a=1)}, "r/grid.json", "'cells' is missing"),
    folder("grid-cells-number", "collect", {"r/grid.json": product(name="x", cells=3)}, "r/grid.json", "not a grid"),
    folder("grid-cell-number", "tables", {"r/grid.json": product(name="x", cells=[1])}, "r/grid.json", "not a grid"),
    folder("grid-cell-climbs", "collect", {"r/grid.json": product(name="x", cells=[{**CELL, "id": "../../x"}])},
           "r/grid.json", "'../../x' is not a name"),
    folder("grid-model-climbs", "figures",
           {"r/grid.json": product(name="x", cells=[{**CELL, "id": "a", "model": "../x"}])},
           "r/grid.json", "'../x' is not a name"),
    folder("grid-space", "tables", {"r/grid.json": product(name="x", cells=[{**CELL, "id": "a", "space": "xp"}])},
           "r/grid.json", "space 'xp'", "sp, ip"),
    folder("grid-sparsity", "tables",
           {"r/grid.json": product(name="x", cells=[{**CELL, "id": "a", "sparsity": "nan"}])},
           "r/grid.json", "sparsity 'nan'", "[0, 1)"),
    folder("grid-seeds", "tables", {"r/grid.json": product(name="x", cells=[{**CELL, "id": "a", "seeds": ["x"]}])},
           "r/grid.json", "not a grid"),
    folder("grid-cell-twice", "collect", {"r/grid.json": product(name="x", cells=[{**CELL, "id": "a"}] * 2)},
           "r/grid.json", "a cell is listed twice"),
    case("verify-sample-zero", "verify r --sample 0", "--sample", "greater than or equal to 1"),
    case("verify-sample-word", "verify r --sample all", "--sample", "valid integer"),
    case("verify-device", "verify r --device tpu", "'tpu'", "auto, cpu, cuda"),
    case("tables-two", "tables a b", "unexpected extra argument"),
    case("figures-option", "figures --overveiw r", "--overveiw", "--overview"),
]  # fmt: skip

PACKING = [
    case("pack-gone", "pack r.json --out o", "r.json: no such file"),
    case("pack-text", "pack r.json --out o", "r.json", "not readable as JSON", files={"r.json": "x"}),
    case("pack-pickle", "pack r.json --out o", "r.json", "not readable as JSON", files={"r.json": PICKLE}),
    case("pack-folder", "pack r.json --out o", "r.json: not a file, but a folder", files={"r.json": None}),
    case("pack-no-run", "pack r.json --out o", "r.json: run", "a mapping", files={"r.json": product(a=1)}),
    case("pack-half-a-run", "pack r.json --out o", "run: model", "must be given",
         files={"r.json": product(run={"dataset": "digits"})}),
    case("pack-climbs", "pack r.json --out o", "run: dataset", "not a name", "'../..'",
         files={"r.json": product(run={"dataset": "../..", "model": "x", "method": "x", "recipe": {}})}),
    case("pack-elsewhere", "pack r.json --out o", "results/NAME/runs/CELL/SEED.json",
         files={"r.json": product(run={"dataset": "digits", "model": "x", "method": "x", "recipe": {}})}),
    case("pack-values", "pack r.json --out o --values fp8", "'fp8'", "bf16, fp16, fp32", files={"r.json": "x"}),
    case("pack-no-out", "pack r.json", "Missing option '--out'"),
    case("slice-gone", "slice r.json --to o", "r.json: no such file"),
    case("slice-pickle", "slice r.json --to o", "r.json", "not readable as JSON", files={"r.json": PICKLE}),
    case("slice-elsewhere", "slice r.json --to o", "results/NAME/runs/CELL/SEED.json",
         files={"r.json": product(run={"dataset": "digits", "model": "x", "method": "x", "recipe": {}})}),
    case("slice-constant", "slice r.json --to o --constant keep", "'keep'", "drop, fold, refuse",
         files={"r.json": "x"}),
    case("slice-no-to", "slice r.json", "Missing option '--to'"),
    case("unpack-no-out", "unpack p", "Missing option '--out'"),
    case("unpack-pickle", "unpack p --out o", "p: not a packed net", "ipbench pack", files={"p": PICKLE}),
    *(
        case(f"packed-{id}", "inspect p", "p: ", *says, files={"p": content})
        for id, content, *says in [
            ("folder", None, "Is a directory"),
            ("empty", b"", "not a packed net", "ipbench pack"),
            ("text", b"hello", "not a packed net", "ipbench pack"),
            ("pickle", PICKLE, "not a packed net", "ipbench pack"),
            ("magic-alone", b"IPBPACK\0", "checksum does not match"),
            ("cut", packed()[:-1], "checksum does not match"),
            ("longer", packed() + b"x", "checksum does not match"),
            ("version", packed(version=4), "format 4", "reads formats 1"),
            ("users-own", packed(version=3), "its user's own", "ipbench.load"),
            ("no-structure", packed(version=2), "header: structure", "must be given"),
            ("structure-of-format-1", packed({"structure": {}, "shapes": {}}), "'s", "valid: basis, dataset"),
            ("structure-vast", packed({"structure": {"x": [2**62, "8"]}, "shapes": {}}, version=2), "does not hold"),
            ("shapes-vast", packed({"structure": {}, "shapes": {"classifier.bias": [2**62]}}, version=2),
             "cut from none"),
            ("header-pickle", packed(header=PICKLE), "header is not readable"),
            ("header-deep", packed(header=b"[" * 100_000), "header is not readable"),
            ("header-list", packed(header=b"[]"), "header", "a mapping of keys"),
            ("header-key", packed({"extra": 1}), "'extra'", "valid: basis, dataset"),
            ("dataset", packed({"dataset": "digit"}), "'digit'", "did you mean 'digits'"),
            ("dataset-climbs", packed({"dataset": "../x"}), "'../x'", "valid: cifar10"),
            ("model-does-not-fit", packed({"model": "lenet5-caffe"}), "lenet5-caffe", "at least 16 x 16"),
            ("seed", packed({"seed": -1}), "seed", "greater than or equal to 0"),
            ("seed-float", packed({"seed": 1.5}), "seed", "valid integer"),
            ("space", packed({"space": "xp"}), "space", "'sp' or 'ip'"),
            ("init", packed({"init": "x"}), "init", "'kaiming_normal'"),
            ("values", packed({"values": "fp8"}), "'fp8'", "valid: fp32, fp16, bf16"),
            ("no-layers", packed(), "0 layers", "a small-vgg, which has 7"),
            ("layers-without-body", packed({"layers": [[1, 2, 3]] * 7}), "does not hold a small-vgg"),
            ("layers-huge", packed({"layers": [[10**12, 2, 10**12]] * 7}), "layer stage1.conv1", "in 288"),
            ("layers-negative", packed({"layers": [[-5, 2, -5]] * 7}), "header: layers", "0 (got -5)"),
            ("vast", packed({"dataset": "imagenet", "model": "vit_h_14", "layers": [[0, 0, 0]] * 130}),
             "ends too early"),
        ]
    ),
]  # fmt: skip


@dataclass(frozen=True)
class Damage:
    """A file of a trained results folder `r` replaced, and a command that reads it.

    Attributes:
        path: of the file, below the folder; {dense} stands for the id of the dense cell.
        change: its new content, from the old one; None for a folder.
    """

    id: str
    command: str
    path: str
    change: Callable[[bytes], bytes | None]
    says: tuple[str, ...]

    def __str__(self) -> str:
        return self.id


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "pickle": lambda old: PICKLE,
    "empty": lambda old: b"",
    "cut": lambda old: old[: len(old) // 2],
    "flipped": lambda old: old[: len(old) // 2] + bytes([old[len(old) // 2] ^ 1]) + old[len(old) // 2 + 1 :],
    "text": lambda old: b"hello",
    "folder": lambda old: None,
}
RECORD, END, STATE = "runs/{dense}/0.json", "ends/{dense}/0.safetensors", "state/{dense}/0.safetensors"
READERS = [
    ("record", RECORD, f"run --method dense {TRAIN} --out r", list(DAMAGES)),
    ("record-packed", RECORD, "pack r/runs/{dense}/0.json --out o", ["cut", "flipped"]),
    ("end", END, f"run --method ft --sparsity 0.5 {TRAIN} --out r", list(DAMAGES)),
    ("end-packed", END, "pack r/runs/{dense}/0.json --out o", ["pickle", "cut", "flipped"]),
    ("end-sliced", END, "slice r/runs/{dense}/0.json --to o --onnx o.onnx", ["pickle", "cut"]),
    ("state", STATE, f"run --method dense {TRAIN} --out r", ["pickle", "empty", "text", "folder"]),
    ("parquet", "runs.parquet", "summary r", ["pickle", "empty", "cut", "text", "folder"]),
    ("parquet-tables", "runs.parquet", "tables r", ["pickle", "cut"]),
    ("parquet-verify", "runs.parquet", "verify r", ["pickle", "cut"]),
    ("packed-net", "net.ipb", "unpack r/net.ipb --out o", list(DAMAGES)),
]
DAMAGED = [
    Damage(f"{name}-{kind}", command, path, DAMAGES[kind], (path.rpartition("/")[2],))
    for name, path, command, kinds in READERS
    for kind in kinds
]

CASES = [*FOLDERS, *PACKING]


@pytest.mark.parametrize("bad", CASES, ids=str)
def test_one_line_and_no_file(bad, refuses):
    refuses(bad)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A results folder `r` with a dense run, its end, a grid, a parquet and a packed net; not to be changed."""
    place = tmp_path_factory.mktemp("trained")
    lay(place, {"x.yaml": YAML})
    results = place / "r"
    assert main(["grid", str(place / "x.yaml"), "--out", str(results / "grid.json")]) == 0
    assert main([*shlex.split(f"run --method dense {TRAIN} --keep --out"), str(results)]) == 0
    (record,) = results.glob("runs/*/0.json")
    assert main(["pack", str(record), "--out", str(results / "net.ipb")]) == 0
    assert main(["collect", str(results)]) == 0
    return results


@pytest.mark.parametrize("bad", DAMAGED, ids=str)
def test_a_damaged_product_is_one_line_and_no_file(bad, trained, tmp_path, monkeypatch, capfd):
    shutil.copytree(trained, tmp_path / "r")
    monkeypatch.chdir(tmp_path)
    (record,) = (tmp_path / "r").glob("runs/*/0.json")
    path = tmp_path / "r" / bad.path.format(dense=record.parent.name)
    path.parent.mkdir(exist_ok=True, parents=True)
    content = bad.change(path.read_bytes() if path.exists() else b"")
    path.unlink(missing_ok=True)
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    if bad.path == STATE:
        record.unlink()  # or nothing would be left to do
    if bad.path == "runs.parquet":
        shutil.rmtree(tmp_path / "r/runs")  # or it would be collected anew
    before = everything(tmp_path)
    capfd.readouterr()
    code = main(shlex.split(bad.command.format(dense=record.parent.name)))
    captured = capfd.readouterr()
    check(code, captured.out, captured.err, bad.says)
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    "command", ["summary r", "pack {record} --out o", "unpack r/net.ipb --out o", "slice {record} --to o"]
)
def test_the_undamaged_ones_are_read(command, trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "r")
    monkeypatch.chdir(tmp_path)
    (record,) = Path("r").glob("runs/*/0.json")
    assert main(shlex.split(command.format(record=record))) == 0
