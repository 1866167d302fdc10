"""`ipbench slice`: the small dense net as two files and as ONNX, read back; one line for every broken file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from ipbench.cli.main import main
from ipbench.errors import BadInput, BadProduct
from ipbench.models.build import build
from ipbench.packing import dense, onnx_file
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.runs.records import end_path, record_path
from ipbench.runs.state import End, read_end, write_end
from ipbench.sparse.net import SparseNet
from ipbench.spec import Basis, Recipe, Run
from ipbench.store import read_json, write_json

RECIPE = Recipe(epochs=1, batch_size=100, train_examples=300)
SPACES = {"sp": {}, "ip": {"space": "ip", "basis": Basis(sharing="network", init="orthonormal")}}
IMAGES = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def make_run(**values) -> Run:
    defaults = {"dataset": "digits", "model": "small-vgg", "method": "snip", "recipe": RECIPE, "sparsity": "0.5"}
    return Run(**{**defaults, **values})


def masked(**values) -> SparseNet:
    """A net of which every third channel has no filters, and the classifier does not read the last ones' first ten."""
    run = make_run(**values)
    net = SparseNet(build(run.model, (1, 8, 8), 10, run.seed, run.recipe.init), run, (1, 8, 8))
    masks = {name: mask.clone() for name, mask in net.masks.items()}
    for group in net.groups.free:
        for member in group.producers:
            masks[member.layer].index_fill_(member.axis, torch.from_numpy(member.indices[::3].ravel()), False)
    masks["classifier"][:, :10] = False
    net.prune(masks)
    with torch.no_grad():
        for name, tensor in net.tensors().items():
            if name.endswith("running_mean"):
                tensor.copy_(torch.linspace(-0.1, 0.1, len(tensor)))
    return net.eval()


def end_of(net: SparseNet) -> End:
    return End(net.tensors(), net.masks, structure=net.structure)


@pytest.fixture
def written(tmp_path) -> Path:
    net = masked()
    dense.save(tmp_path / "net", net.run, end_of(net))
    return tmp_path / "net"


@pytest.mark.parametrize("model", ["small-vgg", "resnet20-cifar"])
@pytest.mark.parametrize("space", SPACES)
def test_what_is_read_back_computes_what_was_cut(tmp_path, space, model):
    net = masked(**SPACES[space], model=model)
    end = end_of(net)
    told = dense.save(tmp_path / "net", net.run, end)
    again = dense.load(tmp_path / "net")
    net.slice()
    assert torch.allclose(again(IMAGES), net(IMAGES), atol=1e-5) and not again.training
    assert sum(p.numel() for p in again.parameters()) == net.now.parameters < net.counted.parameters
    assert told.structure == net.structure and not any(t.is_meta for t in again.state_dict().values())
    facts = read_json(tmp_path / "net.json")
    assert facts["structure"] == net.structure.to_json() and facts["parameters"] == net.now.parameters
    assert (facts["macs"], facts["macs_dense"]) == (net.now.macs, net.counted.macs)
    assert facts["model"] == model and facts["shape"] == [1, 8, 8] and facts["classes"] == 10
    for name in ("net.json", "net.safetensors"):
        assert torch.equal(dense.load(tmp_path / name)(IMAGES), again(IMAGES))
    # An end that is sliced already gives the same files.
    dense.save(tmp_path / "again", net.run, end_of(net))
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "net.json").read_bytes()


def test_a_net_without_dead_channels_is_written_whole(tmp_path):
    net = masked(off="frozen")
    assert not dense.save(tmp_path / "net", net.run, end_of(net)).structure
    again = dense.load(tmp_path / "net")
    assert torch.equal(again(IMAGES), net(IMAGES)) and read_json(tmp_path / "net.json")["cut"] == {}


def changed(path: Path, **values) -> None:
    """The same facts with other values, and a checksum that is right."""
    write_json(path, {**read_json(path), **values})


def other_cut(path: Path, tensor: str, kept: list[int]) -> None:
    cut = read_json(path)["cut"]
    cut[tensor]["kept"]["0"] = kept
    changed(path, cut=cut)


def another_axis(axis: str, kept: list[int]):
    """Spoils the axes of a tensor."""

    def spoil(base: Path) -> None:
        cut = read_json(base.with_suffix(".json"))["cut"]
        cut["stage1.conv1.weight"]["kept"][axis] = kept
        changed(base.with_suffix(".json"), cut=cut)

    return spoil


def facts(**values):
    """Spoils what stands in the facts."""
    return lambda base: changed(base.with_suffix(".json"), **values)


def outputs(*kept: int, tensor: str = "stage1.conv1.weight"):
    """Spoils which outputs are left of a tensor."""
    return lambda base: other_cut(base.with_suffix(".json"), tensor, list(kept))


def cut_off(suffix: str):
    def spoil(base: Path) -> None:
        path = base.with_suffix(suffix)
        path.write_bytes(path.read_bytes()[:-9])

    return spoil


def altered(base: Path) -> None:
    path = base.with_suffix(".json")
    path.write_text(path.read_text().replace("small-vgg", "vgg16"))


def others_tensors(base: Path) -> None:
    net = masked(seed=1)
    dense.save(base.with_name("other"), net.run, end_of(net))
    base.with_name("other.safetensors").rename(base.with_suffix(".safetensors"))


BROKEN = {
    "cut off": (cut_off(".json"), "JSON"),
    "altered": (altered, "checksum"),
    "missing facts": (lambda base: base.with_suffix(".json").unlink(), "net.json"),
    "missing tensors": (lambda base: base.with_suffix(".safetensors").unlink(), "net.safetensors"),
    "tensors cut off": (cut_off(".safetensors"), "net.safetensors"),
    "other tensors": (others_tensors, "not the tensors that"),
    "unknown model": (facts(model="vgg61"), "unknown model 'vgg61'"),
    "another model": (facts(model="lenet-300-100"), "cannot be built here"),
    "other classes": (facts(classes=11), r"classifier.weight has shape \(11, 128\)|is of shape \(11, 128\)"),
    "vast classes": (facts(classes=2**40), "not what"),
    "vast images": (facts(shape=[1, 2**20, 2**20]), "not what"),
    "no shape": (facts(shape="8x8"), "not what"),
    "no cut": (facts(cut=[1]), "not what"),
    "another kind": (facts(kind="record"), "not what"),
    "index outside": (outputs(1, 40), "not what"),
    "index below": (outputs(-1, 4), "not what"),
    "index that is vast": (outputs(1, 2**70), "not what"),
    "an axis from the end": (another_axis("-1", [0]), "not what"),
    "an axis too many": (another_axis("7", [0]), "not what"),
    "indices that fall": (outputs(4, 2), "not what"),
    "fewer channels": (outputs(1, tensor="stage1.norm1.weight"), "several lengths"),
    "fewer filters": (outputs(1), "other shapes than its model"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_one_line(written, kind):
    spoil, message = BROKEN[kind]
    spoil(written)
    with pytest.raises(BadInput, match=message) as error:
        dense.load(written)
    assert "\n" not in str(error.value) and str(written) in str(error.value)


def test_values_that_are_not_finite_are_not_written(tmp_path):
    net = masked()
    with torch.no_grad():
        net.coefficients["classifier"][3, 11] = float("nan")
    with pytest.raises(BadInput, match=r"classifier.weight holds values that are not finite"):
        dense.save(tmp_path / "net", net.run, end_of(net))
    with pytest.raises(BadProduct, match="not the end of a small-vgg in space ip"):
        dense.save(tmp_path / "net", make_run(**SPACES["ip"]), end_of(net))
    assert not list(tmp_path.iterdir())


# ONNX.


@pytest.mark.parametrize("model", ["small-vgg", "resnet20-cifar"])
@pytest.mark.parametrize("space", SPACES)
def test_the_onnx_file_computes_the_same_for_batches_of_any_size(tmp_path, space, model):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx").checker  # noqa: B018
    net = masked(**SPACES[space], model=model)
    dense.save(tmp_path / "net", net.run, end_of(net), onnx=tmp_path / "net.onnx")
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    again = dense.load(tmp_path / "net")
    for number in (1, 2, 5):
        (logits,) = session.run(["logits"], {"images": IMAGES[:number].numpy()})
        assert torch.allclose(torch.from_numpy(logits), again(IMAGES[:number]), atol=1e-5)


def test_without_the_package_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file.importlib.util, "find_spec", lambda name: None)
    net = masked()
    with pytest.raises(BadInput, match=r"pip install 'ipbench\[export\]'"):
        dense.save(tmp_path / "net", net.run, end_of(net), onnx=tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


# The command.


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Run]:
    """A trained run with its end."""
    folder, run = tmp_path_factory.mktemp("trained"), make_run(method="dense", sparsity="0")
    execute(run, folder, Environment(), keep=True)
    net = masked()
    end = read_end(end_path(folder, run), run)
    write_end(end_path(folder, run), run, End(net.tensors(), net.masks, end.point, end.facts))
    return folder, run


def test_the_command(tmp_path, trained, capsys):
    folder, run = trained
    record = str(record_path(folder, run))
    assert main(["slice", record, "--to", str(tmp_path / "net")]) == 0
    shown = capsys.readouterr().out
    assert "stage1.conv1: 21 of 32 channels" in shown and "parameters: x" in shown
    facts = json.loads((tmp_path / "net.json").read_text())
    assert f"{facts['parameters']:,} of {facts['parameters_dense']:,} parameters" in shown
    assert dense.load(tmp_path / "net")(IMAGES).shape == (5, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--constant", "keep"], "unknown constant 'keep' in --constant"),
        (["--constant", "fold"], "its padding makes it another number at the border"),
        (["--constant", "refuse"], "constant=refuse"),
    ],
)
def test_a_refusal_is_one_line_and_writes_nothing(tmp_path, trained, capsys, options, message):
    folder, run = trained
    assert main(["slice", str(record_path(folder, run)), "--to", str(tmp_path / "net"), *options]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["slice", "pack"])
@pytest.mark.parametrize("which", ["record", "end"])
def test_what_is_read_is_not_written_over(trained, capsys, command, which):
    folder, run = trained
    record, end = record_path(folder, run), end_path(folder, run)
    before = record.read_bytes(), end.read_bytes()
    output = record if which == "record" else end
    named = ["--to", str(output.with_suffix(""))] if command == "slice" else ["--out", str(output)]
    assert main([command, str(record), *named]) == 2
    told = capsys.readouterr().err
    assert "would be written over what is read" in told and told.count("\n") == 1
    assert before == (record.read_bytes(), end.read_bytes())


@pytest.mark.parametrize("to", [".", "/"])
def test_a_folder_is_no_name_of_a_net(trained, capsys, to):
    folder, run = trained
    assert main(["slice", str(record_path(folder, run)), "--to", to]) == 2
    told = capsys.readouterr().err
    assert "is a folder" in told and told.count("\n") == 1


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_onnx_does_not_take_the_place_of_another_file(tmp_path, trained, capsys, suffix):
    folder, run = trained
    options = ["--to", str(tmp_path / "net"), "--onnx", str(tmp_path / "x" / ".." / f"net{suffix}")]
    assert main(["slice", str(record_path(folder, run)), *options]) == 2
    assert "cannot have the name of one of the two files" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_run_without_its_end_is_refused(tmp_path, trained, capsys):
    folder, run = trained
    end_path(folder, run).rename(tmp_path / "away")
    assert main(["slice", str(record_path(folder, run)), "--to", str(tmp_path / "net")]) == 2
    (tmp_path / "away").rename(end_path(folder, run))
    assert "`ipbench run --keep`" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_leaves_none(tmp_path, trained, capsys):
    folder, run = trained
    (tmp_path / "net.json").mkdir()
    assert main(["slice", str(record_path(folder, run)), "--to", str(tmp_path / "net")]) == 2
    assert "net.json: not written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["net.json"]


def test_nothing_is_unpickled():
    assert "torch.load" not in Path(sys.modules["ipbench.packing.dense"].__file__ or "").read_text()
