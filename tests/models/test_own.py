"""Models of users: what they are by digest, what is made of them, and weights that a net starts with."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ipbench.errors import BadInput
from ipbench.models import catalog, fetching, own
from ipbench.models.build import build, outline
from ipbench.spec import Own

NET = """
from torch import nn
from blocks import layer

CACHE = []


def net(shape, classes):
    CACHE.append(1)
    assert len(CACHE) == 1
    return nn.Sequential(nn.Flatten(), layer(shape[0] * shape[1] * shape[2], 5), nn.ReLU(), nn.Linear(5, classes))
"""
BLOCKS = "from torch import nn\n\n\ndef layer(inputs, outputs):\n    return nn.Linear(inputs, outputs)\n"
SHAPE = (1, 4, 4)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A net in a file, and a module beside it."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "blocks.py").write_text(BLOCKS)
    before = dict(catalog.OWN)
    yield tmp_path
    catalog.OWN.clear()
    catalog.OWN.update(before)


def told(folder: Path, **said: str | None) -> Own:
    values = {"weights": None, "label": None, **said}
    return own.own_of(own.model("net", file=folder / "net.py", root=folder, folder=folder, where="x", **values))


def test_the_code_is_what_a_model_is(folder, tmp_path_factory):
    before = told(folder)
    assert len(before.code) == 64 and before == told(folder) and "blocks" not in sys.modules
    other = tmp_path_factory.mktemp("elsewhere")
    (other / "net.py").write_text(NET)
    (other / "blocks.py").write_text(BLOCKS)
    assert told(other) == before
    (other / "blocks.py").write_text(BLOCKS + "\n")
    assert told(other).code != before.code


def test_two_folders_have_a_module_of_the_same_name(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("elsewhere")
    (other / "net.py").write_text(NET)
    (other / "blocks.py").write_text(BLOCKS.replace("inputs, outputs)\n", "inputs, outputs, bias=False)\n"))
    first, second = told(folder), told(other, label="second")
    assert len(build("net", SHAPE, 3, 0, told=first).state_dict()) == 4
    assert len(build("second", SHAPE, 3, 0, told=second).state_dict()) == 3
    assert not [name for name in sys.modules if name in ("blocks", "ipbench_model")]
    assert not list(folder.rglob("*.pyc"))


def test_a_net_is_a_function_of_the_seed(folder):
    """Its file is run anew each time: the cache in it is always empty."""
    own_of = told(folder)
    first, again, other = (build("net", SHAPE, 3, seed, told=own_of).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["1.weight"], other["1.weight"])
    assert next(outline("net", SHAPE, 3, own_of).parameters()).is_meta


@pytest.mark.parametrize("name", ["net.py", "blocks.py"])
def test_what_changes_behind_a_plan_is_refused(folder, name):
    own_of = told(folder)
    (folder / name).write_text((folder / name).read_text() + "# more\n")
    with pytest.raises(BadInput, match=r"net.py: not the code that model net was planned with"):
        build("net", SHAPE, 3, 0, told=own_of)


def test_a_name_alone_is_never_a_users_model(folder):
    told(folder)
    with pytest.raises(BadInput, match="unknown model 'net'"):
        own.known("net", "x")
    with pytest.raises(BadInput, match="give --model-file with the file of SHA-256"):
        own.check("net2", Own(code="0" * 64))


def test_weights_of_a_file(folder, capsys):
    given = build("net", SHAPE, 3, 5, told=told(folder))
    save_file(given.state_dict(), folder / "w.safetensors")
    with_weights = told(folder, weights="w.safetensors", label="pretrained")
    assert with_weights.base == "net" and len(with_weights.weights) == 64
    net = build("pretrained", SHAPE, 3, 0, told=with_weights)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), given.state_dict().values(), strict=True))
    other = build("pretrained", SHAPE, 7, 0, told=with_weights)
    drawn = build("net", SHAPE, 7, 0, told=told(folder))
    assert torch.equal(other.state_dict()["1.weight"], given.state_dict()["1.weight"])
    assert torch.equal(other.state_dict()["3.weight"], drawn.state_dict()["3.weight"])
    assert "so drawn: 3.bias, 3.weight" in capsys.readouterr().err
    save_file({**given.state_dict(), "1.bias": torch.ones(5)}, folder / "w.safetensors")
    with pytest.raises(BadInput, match="not the weights that model pretrained was planned with"):
        build("pretrained", SHAPE, 3, 0, told=with_weights)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: {**state, "x": torch.ones(1)}, "holds 'x', which the net does not have"),
        (lambda state: {name: state[name] for name in list(state)[1:]}, "lacks '1.weight', which the net has"),
        (lambda state: {**state, "1.weight": torch.ones(5, 3)}, r"'1.weight' has the shape \(5, 3\)"),
        (lambda state: {**state, "1.bias": torch.full((5,), torch.nan)}, "'1.bias' holds values that are not finite"),
    ],
)
def test_weights_that_do_not_fit(folder, change, says):
    save_file(change(build("net", SHAPE, 3, 5, told=told(folder)).state_dict()), folder / "w.safetensors")
    with pytest.raises(BadInput, match=says):
        build("net", SHAPE, 3, 0, told=told(folder, weights="w.safetensors"))


def test_weights_by_name_are_fetched_once(tmp_path, monkeypatch):
    """By a stand-in for the download: this is no test of torchvision's server."""
    state = build("squeezenet1_1", (3, 64, 64), 10, 3).state_dict()
    calls = []

    def stand_in_for_the_download(base: str, name: str) -> dict[str, torch.Tensor]:
        calls.append((base, name))
        return state

    monkeypatch.setattr(fetching, "download", stand_in_for_the_download)
    path = fetching.fetch("squeezenet1_1", "IMAGENET1K_V1", tmp_path)
    assert fetching.fetch("squeezenet1_1", "IMAGENET1K_V1", tmp_path) == path
    assert calls == [("squeezenet1_1", "IMAGENET1K_V1")]
    name = own.model(
        "squeezenet1_1", file=None, weights="IMAGENET1K_V1", label=None, root=tmp_path, folder=tmp_path, where="x"
    )
    net = build(name, (3, 64, 64), 10, 0, told=own.own_of(name))
    assert all(torch.equal(net.state_dict()[key], state[key]) for key in state)
    catalog.OWN.pop(name)
    for wrong in ("DEFAULT", "IMAGENET1K_V9"):
        with pytest.raises(BadInput, match="IMAGENET1K_V1"):
            fetching.fetch("squeezenet1_1", wrong, tmp_path)


def test_what_cannot_be_downloaded(tmp_path, monkeypatch):
    def no_network(base: str, name: str) -> dict[str, torch.Tensor]:
        raise OSError("no network")

    monkeypatch.setattr(fetching, "download", no_network)
    with pytest.raises(BadInput, match=r"could not download the weights IMAGENET1K_V1 \(no network\)"):
        fetching.fetch("resnet18", "IMAGENET1K_V1", tmp_path)
    assert not list(tmp_path.iterdir())


def test_timm():
    pytest.importorskip("timm")
    assert catalog.check("timm/test_resnet") == "timm.test_resnet"
    net = build("timm.test_resnet", (1, 32, 32), 5, 0)
    assert net(torch.zeros(2, 1, 32, 32)).shape == (2, 5)
    with pytest.raises(BadInput, match="did you mean timm/resnet18"):
        catalog.check("timm/resnt18")
    with pytest.raises(BadInput, match="names weights"):
        catalog.check("timm/resnet18.a1_in1k")


def test_without_timm(monkeypatch):
    monkeypatch.setattr(catalog.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"timm is not installed: pip install 'ipbench\[timm\]'"):
        catalog.check("timm/resnet18")


@pytest.mark.parametrize("name", ["lenet5-caffe", "small-vgg", "resnet20-cifar"])
def test_listed_sizes(name):
    from ipbench.sparse.measure import count

    size = catalog.SIZES[name]
    shape = tuple(map(int, size.input.split("x")))
    counted = count(outline(name, shape, size.classes), shape)
    assert (counted.parameters, counted.macs) == (size.parameters, size.macs)


def test_every_model_of_ours_has_a_size():
    assert list(catalog.SIZES) == [*catalog.MODELS, *catalog.DETECTORS]
