"""Packed nets: bit-equal outputs, the storage claim in bytes, one line for every broken file."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ipbench.cli.main import main
from ipbench.errors import BadInput, BadProduct
from ipbench.models.build import _OWN, _Own, build
from ipbench.packing import file as packed_file
from ipbench.packing import mask_code as sparse_code
from ipbench.packing import net as packing
from ipbench.packing.file import MAGIC
from ipbench.packing.net import inspect, pack, plain_state, unpack
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.runs.records import end_path, record_path
from ipbench.runs.state import End, read_end
from ipbench.sparse.net import SparseNet
from ipbench.sparse.structure import Structure
from ipbench.spec import Basis, Recipe, Run
from ipbench.store import read_json, tensors_digest

RECIPE = Recipe(epochs=1, batch_size=100, train_examples=300)


def make_run(**values) -> Run:
    return Run(
        **{"dataset": "digits", "model": "small-vgg", "method": "snip", "recipe": RECIPE, "sparsity": "0.95", **values}
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run's end and its net, trained once per run."""
    folder, known = tmp_path_factory.mktemp("trained"), {}

    def of(run: Run) -> tuple[End, SparseNet]:
        if run.id not in known:
            execute(run, folder, Environment(), keep=True)
            end = read_end(end_path(folder, run), run)
            net = SparseNet(build(run.model, (1, 8, 8), 10, run.seed, run.recipe.init), run, (1, 8, 8))
            net.load_tensors(end.net)
            known[run.id] = end, net.eval()
        return known[run.id]

    of.folder = folder
    return of


RUNS = {
    "pruned": make_run(),
    "frozen": make_run(method="freezenet", off="frozen", seed=4_294_967_295),
    "decayed": make_run(method="freezenet", off="decayed"),
    "interspace": make_run(space="ip", basis=Basis(sharing="network", init="orthonormal")),
    "fixed-basis": make_run(space="ip", basis=Basis(train=False, init="orthonormal"), off="frozen", method="random"),
    "dense": make_run(method="dense", sparsity="0"),
    "norm-free": make_run(model="lenet-300-100"),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_what_is_unpacked_gives_the_same_outputs_bit_for_bit(tmp_path, trained, run):
    end, net = trained(run)
    written = pack(tmp_path / "net.ipb", run, end)
    again = unpack(tmp_path / "net.ipb")
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(images), net(images))
    assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in net.tensors().items())
    header, sizes = inspect(tmp_path / "net.ipb")
    assert sizes == written and sizes.total == (tmp_path / "net.ipb").stat().st_size
    assert header["run"] == run.id and sizes.parts["filter bases"] == 4 * net.basis_entries
    plain = build(run.model, (1, 8, 8), 10, 12345)  # another seed: everything comes from the file
    plain.load_state_dict(plain_state(again))
    assert torch.allclose(plain.eval()(images), net(images), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "weights", "masks"),
    [
        ("sp", "e2a0c0c318568a18", "e8be1d4c36c3248b"),
        ("ip", "11bd9d4ae9ac5695", "a0d385f8dab28a58"),
    ],
)
def test_files_of_format_1_are_read(name, weights, masks):
    """Packed by version 0.2.0; the digests are those of the trained nets."""
    path = Path(__file__).parent / "golden" / f"format-1-{name}.ipb"
    net = unpack(path)
    assert tensors_digest(net.tensors()).startswith(weights) and tensors_digest(net.masks).startswith(masks)
    assert path.read_bytes()[8:10] == b"\1\0" and "structure" not in inspect(path)[0]


def test_a_net_of_which_no_channel_is_cut_is_written_as_before(tmp_path):
    """Byte by byte, so that version 0.2.0 reads it."""
    old = Path(__file__).parent / "golden" / "format-1-sp.ipb"
    run = make_run(model="lenet-300-100", sparsity="0.99")
    net = unpack(old)
    pack(tmp_path / "net.ipb", run, End(net.tensors(), net.masks))
    assert (tmp_path / "net.ipb").read_bytes() == old.read_bytes()


@pytest.fixture(params=["sp", "ip"])
def sliced(request):
    """A net without half of the channels, the run it is of, and images."""
    space = {"space": "ip", "basis": Basis(sharing="network", init="orthonormal")} if request.param == "ip" else {}
    return sliced_net(make_run(**space))


def sliced_net(run: Run) -> SparseNet:
    net = with_random_masks(run)
    kept = {group.name: tuple(range(0, group.units, 2)) for group in net.groups.free}
    net.cut(Structure({**kept, "stage1.conv1": (3, 31)}))
    return net


def end_of(net: SparseNet) -> End:
    return End(net.tensors(), net.masks, structure=net.structure)


def test_a_sliced_net_comes_back_bit_for_bit(tmp_path, sliced):
    path, images = tmp_path / "net.ipb", torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    written = pack(path, sliced.run, end_of(sliced))
    again = unpack(path)
    assert again.structure == sliced.structure and path.read_bytes()[8:10] == b"\2\0"
    assert torch.equal(again(images), sliced(images)) and tensors_digest(again.masks) == tensors_digest(sliced.masks)
    whole = SparseNet(build("small-vgg", (1, 8, 8), 10, 0), make_run(), (1, 8, 8))
    whole.cut(sliced.structure)
    assert pack(path, whole.run, end_of(whole)).parts["masks"] == 0
    assert all(bool(mask.all()) for mask in unpack(path).masks.values())
    pack(path, sliced.run, end_of(sliced))
    header, sizes = inspect(path)
    assert sizes == written and sizes.total == path.stat().st_size
    assert header["structure"]["stage1.conv1"] == (32, "10000001") and header["shapes"]["stage1.conv1.weight"] == (
        2,
        1,
        3,
        3,
    )
    kept = sum(int(mask.sum()) for mask in sliced.masks.values())
    assert sizes.parameters == kept + sliced.basis_entries + sliced.now.parameters - sliced.now.prunable
    assert sizes.parameters_dense == sliced.counted.parameters


def test_a_sliced_net_of_frozen_values_comes_back(tmp_path):
    net = sliced_net(make_run(off="frozen"))
    pack(tmp_path / "net.ipb", net.run, end_of(net))
    again = unpack(tmp_path / "net.ipb")
    assert tensors_digest(again.tensors()) == tensors_digest(net.tensors())
    assert tensors_digest(again.start) == tensors_digest(net.start)


@pytest.fixture(scope="module")
def sliced_file(tmp_path_factory) -> bytes:
    net = sliced_net(make_run())
    path = tmp_path_factory.mktemp("sliced") / "net.ipb"
    pack(path, net.run, end_of(net))
    return path.read_bytes()


def with_structure(**changes):
    """Spoils the structure that a header tells."""

    def spoil(content: bytes) -> bytes:
        length = int.from_bytes(content[10:14], "little")
        header = json.loads(content[14 : 14 + length])
        return changed_header(content, **{name: {**header[name], **change} for name, change in changes.items()})

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (with_structure(structure={"stage1.conv1": [32, "c0000000"]}), None),
        (with_structure(structure={"stage1.conv1": [32, "00000000"]}), "not a part of 32 units"),
        (with_structure(structure={"stage1.conv1": [32, "ffffffff"]}), "not a part of 32 units"),
        (with_structure(structure={"stage1.conv1": [30, "10000001"]}), "not a part of 30 units"),
        (with_structure(structure={"stage1.conv1": [32, "1000"]}), "not a part of 32 units"),
        (with_structure(structure={"stage1.conv1": [32, "zz000001"]}), "hexadecimal"),
        (with_structure(structure={"stage1.conv1": [40, "1000000100"]}), "channel group stage1.conv1 has 32 units"),
        (with_structure(structure={"stage1.conv1": [32, "e0000000"]}), "other shapes than the header says"),
        (with_structure(structure={"stage1.conv1": [2**40, "80"]}), "not a part of"),
        (with_structure(structure={"stage1.conv1": [32, "10 00 00 01"]}), "not a part of 32 units"),
        (with_structure(structure={"nowhere": [8, "80"]}), "unknown channel group 'nowhere'"),
        (with_structure(structure={"classifier": [10, "8000"]}), "classifier cannot be cut: .*the net returns"),
        (with_structure(shapes={"stage1.conv1.weight": [3, 1, 3, 3]}), "other shapes than the header says"),
        (with_structure(shapes={"stage1.conv1.weight": [64, 1, 3, 3]}), "is cut from none of its tensors"),
        (with_structure(shapes={"stage1.conv1.weight": [2, 1, 3]}), "is cut from none of its tensors"),
        (with_structure(shapes={"stage1.conv1.weight": [0, 1, 3, 3]}), "header: shapes"),
        (with_structure(shapes={"nothing.weight": [1]}), "is cut from none of its tensors"),
        (with_structure(shapes={"classifier.bias": [9]}), "ends too early|is too long"),
        (lambda c: reseal(c[:8] + (1).to_bytes(2, "little") + c[10:]), "header: unknown key 'shapes'|unknown key"),
    ],
)  # fmt: skip
def test_a_structure_that_cannot_be_is_one_line(tmp_path, sliced_file, spoil, message):
    path = tmp_path / "net.ipb"
    path.write_bytes(spoil(sliced_file))
    if message is None:  # other channels of the same number: a file that is whole, of another net
        assert unpack(path).structure.kept["stage1.conv1"] == (0, 1)
        return
    with pytest.raises(BadProduct, match=message) as error:
        unpack(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_layer_of_which_nothing_is_kept_comes_back(tmp_path):
    run = make_run(model="lenet-300-100")
    net = with_random_masks(run)
    net.prune({**net.masks, "fc1": torch.zeros_like(net.masks["fc1"])})
    pack(tmp_path / "net.ipb", run, End(net.tensors(), net.masks))
    assert tensors_digest(unpack(tmp_path / "net.ipb").tensors()) == tensors_digest(net.tensors())


def test_the_storage_claim_of_freezenet(tmp_path):
    """LeNet-5-Caffe at freezing rate 0.995: 2,732 of 431,080 parameters, x157; the file at most 13.9 kB, x124.

    A random mask has the largest entropy: every other one of that size is coded shorter or equal.
    """
    run = Run(dataset="mnist", model="lenet5-caffe", method="random", recipe=Recipe(), off="frozen", sparsity="0.995")
    net = SparseNet(build("lenet5-caffe", (1, 28, 28), 10, 0), run, (1, 28, 28))
    ranks = torch.rand(430_500, generator=torch.Generator().manual_seed(0)).argsort()
    flat = (ranks < net.budget).split([mask.numel() for mask in net.masks.values()])
    masks = {name: part.view(mask.shape) for part, (name, mask) in zip(flat, net.masks.items(), strict=True)}
    sizes = pack(tmp_path / "net.ipb", run, End(net.tensors(), masks))
    assert net.budget == 2152 and sizes.parameters == 2152 + 580 and sizes.parameters_dense == 431_080
    assert int(sizes.parameters_dense / sizes.parameters) == 157
    assert sizes.parts["values"] == 4 * 2152 and sizes.parts["biases, norms, buffers"] == 4 * 580
    ideal = 430_500 * -(0.005 * np.log2(0.005) + 0.995 * np.log2(0.995)) / 8
    assert ideal < 2443 * 1.001 and sizes.parts["masks"] < 1.04 * ideal
    assert sizes.total <= 13_900 and sizes.dense_bytes / sizes.total >= 124


@pytest.mark.parametrize(("values", "bits"), [("fp16", 10), ("bf16", 7)])
def test_shorter_values_round_kept_coefficients_alone(tmp_path, trained, values, bits):
    run = RUNS["interspace"]
    end, net = trained(run)
    full, short = pack(tmp_path / "full.ipb", run, end), pack(tmp_path / "short.ipb", run, end, values)
    assert short.parts["values"] * 2 == full.parts["values"]
    again, coefficients = unpack(tmp_path / "short.ipb"), net.coefficients
    for name, c in again.coefficients.items():
        assert torch.equal(c != 0, coefficients[name] != 0) or bool((coefficients[name][c == 0].abs() < 1e-6).all())
        assert torch.allclose(c, coefficients[name], rtol=2.0 ** -(bits + 1), atol=1e-7)
    others = {name for name in net.tensors() if "weight" not in name or "norm" in name}
    assert all(torch.equal(net.tensors()[name], again.tensors()[name]) for name in others)


def reseal(content: bytes) -> bytes:
    """The same with a checksum that is right again."""
    return content[:-32] + hashlib.sha256(content[:-32]).digest()


def changed_header(content: bytes, **changes) -> bytes:
    length = int.from_bytes(content[10:14], "little")
    text = json.dumps({**json.loads(content[14 : 14 + length]), **changes}).encode()
    return reseal(content[:10] + len(text).to_bytes(4, "little") + text + content[14 + length :])


def with_nan(content: bytes) -> bytes:
    """The same with a first kept value that is no number."""
    length = int.from_bytes(content[10:14], "little")
    place = 14 + length + sum(coded for _, _, coded in json.loads(content[14 : 14 + length])["layers"])
    return reseal(content[:place] + np.float32("nan").tobytes() + content[place + 4 :])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: b"", "not a packed net"),
        (lambda c: c[:9], "checksum does not match|format"),
        (lambda c: c[:-1], "checksum does not match, the file was cut off or altered"),
        (lambda c: c[: len(c) // 2], "checksum does not match"),
        (lambda c: c[:100] + bytes([c[100] ^ 1]) + c[101:], "checksum does not match"),
        (lambda c: reseal(c[:8] + (4).to_bytes(2, "little") + c[10:]), "packed in format 4; this version"),
        (lambda c: reseal(c[:10] + (2**31).to_bytes(4, "little") + c[14:]), "header is not readable"),
        (lambda c: reseal(c[:-36] + c[-32:]), "ends too early"),
        (lambda c: reseal(c[:-32] + b"more" + c[-32:]), "too long"),
        (lambda c: changed_header(c, model="vgg61"), "unknown model 'vgg61'"),
        (lambda c: changed_header(c, model="lenet-300-100"), "does not fit a lenet-300-100"),
        (lambda c: changed_header(c, dataset="../x"), "unknown data set"),
        (lambda c: changed_header(c, seed=1), "initial values drawn here are not those"),
        (lambda c: changed_header(c, seed=-1), "cannot be built here"),
        (lambda c: changed_header(c, layers=[[1, 99, 1]] * 7), "not a Rice code"),
        (lambda c: changed_header(c, layers="all"), "header: layers"),
        (lambda c: changed_header(c, layers=[[288, 254, 0]] * 7), "not a Rice code of 288 in 288"),
        (lambda c: changed_header(c, code="import os"), "unknown key"),
        (lambda c: changed_header(c, layers=[[2**60, 3, 1]] * 7), "not a Rice code of 1152921504606846976 in 288"),
        (lambda c: changed_header(c, layers=[[-1, 3, 1]] * 7), "header: layers"),
        (lambda c: changed_header(c, layers=[[0, 0, 2**50]] * 7), "layer stage1.conv1: 1125899906842624 bytes"),
        (lambda c: changed_header(c, layers=[[0, 0, 0]] * 1000), "1000 layers: it does not fit a small-vgg"),
        (lambda c: changed_header(c, space="ip"), "ends too early"),
        (lambda c: with_nan(c), "holds values that are not finite"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_line(tmp_path, trained, spoil, message):
    run = RUNS["frozen"]
    path = tmp_path / "net.ipb"
    pack(path, run, trained(run)[0])
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(BadProduct, match=message) as error:
        unpack(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


class Mixed(nn.Module):
    """Tied weights, a transposed convolution, attention, and a parameter that is not prunable."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.three = nn.Conv2d(4, 4, 3, padding=1)
        self.three.weight = self.two.weight
        self.up, self.scale = nn.ConvTranspose2d(4, 8, 3, groups=2), nn.Parameter(torch.rand(8, 1))
        self.attention, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.BatchNorm1d(8)
        self.out = nn.Linear(8, classes)
        self.again = self.out

    def forward(self, x):
        x = self.up(self.three(torch.relu(self.two(torch.relu(self.one(x)))))).flatten(2) * self.scale
        x = x.transpose(1, 2)
        return self.again(self.norm(self.attention(x, x, x)[0].mean(1)))


def with_random_masks(run: Run) -> SparseNet:
    net = SparseNet(build(run.model, (1, 8, 8), 10, run.seed, run.recipe.init), run, (1, 8, 8))
    net.prune({name: net.uniform(name) < 0.3 for name in net.masks})
    return net.eval()


@pytest.mark.parametrize("sharing", [None, "layer", "stage", "network"])
def test_nets_of_every_kind_of_weight(tmp_path, monkeypatch, sharing):
    monkeypatch.setitem(_OWN, "small-vgg", _Own(lambda shape, classes: Mixed(classes)))
    space = {"space": "ip", "basis": Basis(sharing=sharing, init="orthonormal")} if sharing else {}
    run = make_run(off="frozen", **space)
    net, images = with_random_masks(run), torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    sizes = pack(tmp_path / "net.ipb", run, End(net.tensors(), net.masks))
    again = unpack(tmp_path / "net.ipb")
    assert torch.equal(again(images), net(images)) and inspect(tmp_path / "net.ipb")[1] == sizes
    assert list(again.masks) == ["one", "two", "up", "attention.in_proj_weight", "attention.out_proj", "out"]
    plain = Mixed(10)
    plain.load_state_dict(plain_state(again))
    assert torch.allclose(plain.eval()(images), net(images), atol=1e-6)


FACTORS = [1.0, 0.0, *torch.rand(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()]


@pytest.mark.parametrize("told", [True, False], ids=["told", "version 0.1.0"])
def test_the_factor_of_decayed_values_comes_back_to_the_bit(tmp_path, monkeypatch, told):
    monkeypatch.setitem(_OWN, "small-vgg", _Own(lambda shape, classes: nn.Sequential(nn.Flatten(), nn.Linear(64, 10))))
    run = make_run(off="decayed")
    net = with_random_masks(run)
    for factor in FACTORS:
        net.fade(factor)
        pack(tmp_path / "net.ipb", run, End(net.tensors(), net.masks, facts={"faded": factor} if told else {}))
        again = unpack(tmp_path / "net.ipb")
        assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in net.tensors().items())
        assert not told or inspect(tmp_path / "net.ipb")[0]["faded"] == factor


def test_an_end_tells_the_factor(trained):
    run = RUNS["decayed"]
    end, _ = trained(run)
    record = json.loads(record_path(trained.folder, run).read_text())
    assert end.facts["faded"] == record["outcome"]["faded"] < 1


@pytest.mark.parametrize(
    ("values", "put", "words"),
    [
        ("fp16", 70_000.0, "classifier: 70000 cannot be packed as float16, whose largest is 65504"),
        ("bf16", 3.4e38, r"classifier: 3\.4e\+38 cannot be packed as bfloat16, whose largest is 3\.38953e\+38"),
        ("fp32", float("nan"), "classifier: nan cannot be packed as float32"),
        ("fp16", float("-inf"), "classifier: -inf cannot be packed as float32"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(tmp_path, values, put, words):
    run = make_run(model="lenet-300-100")
    net = with_random_masks(run)
    with torch.no_grad():
        net.coefficients["classifier"].flatten()[net.masks["classifier"].flatten().nonzero()[0]] = put
        assert pack(tmp_path / "full.ipb", run, End(net.tensors(), net.masks)) if values == "bf16" else True
    with pytest.raises(BadInput, match=words):
        pack(tmp_path / "net.ipb", run, End(net.tensors(), net.masks), values)
    assert not (tmp_path / "net.ipb").exists()


def test_values_that_become_zero_are_told(tmp_path):
    run = make_run(model="lenet-300-100")
    net = with_random_masks(run)
    with torch.no_grad():
        net.coefficients["classifier"].flatten()[net.masks["classifier"].flatten().nonzero()[:3, 0]] = 1e-9
    end = End(net.tensors(), net.masks)
    assert [pack(tmp_path / "net.ipb", run, end, values).zeroed for values in ("fp32", "bf16", "fp16")] == [0, 0, 3]


@pytest.mark.parametrize("off", ["zero", "frozen", "decayed"])
def test_what_is_left_out_must_have_its_off_value(tmp_path, off):
    run = make_run(model="lenet-300-100", off=off)
    net = with_random_masks(run)
    with torch.no_grad():
        net.coefficients["fc1"].flatten()[(~net.masks["fc1"].flatten()).nonzero()[0]] += 0.5
    with pytest.raises(BadProduct, match="does not have its off-value"):
        pack(tmp_path / "net.ipb", run, End(net.tensors(), net.masks))


def test_claims_are_checked_before_a_net_is_built(tmp_path, trained, monkeypatch):
    """A header that claims ViT-H/14 with its 632 million weights, all of them left out."""
    run = RUNS["frozen"]
    path = tmp_path / "net.ipb"
    written = pack(path, run, trained(run)[0])
    monkeypatch.setattr(packing, "build_model", lambda *_: pytest.fail("a net was built"))
    assert inspect(path)[1] == written
    layers = [[0, 0, 0]] * (1 + 32 * 4 + 1)
    path.write_bytes(changed_header(path.read_bytes(), dataset="imagenet", model="vit_h_14", layers=layers))
    for read in (inspect, unpack):
        with pytest.raises(BadProduct, match="does not hold a vit_h_14: it ends too early"):
            read(path)


def test_a_file_that_is_too_small_for_its_net_is_neither_written_nor_read(tmp_path, trained, monkeypatch):
    run = RUNS["frozen"]
    pack(tmp_path / "net.ipb", run, trained(run)[0])
    monkeypatch.setattr(packed_file, "MOST_PARAMETERS", 1000)
    assert inspect(tmp_path / "net.ipb")  # more than a byte for every hundred parameters
    monkeypatch.setattr(packed_file, "_PARAMETERS_PER_BYTE", 1)
    with pytest.raises(BadProduct, match=r"a small-vgg of [0-9,]+ parameters in [0-9,]+ bytes; above 1,000"):
        unpack(tmp_path / "net.ipb")
    with pytest.raises(BadInput, match="above 1,000 parameters"):
        pack(tmp_path / "again.ipb", run, trained(run)[0])
    assert not (tmp_path / "again.ipb").exists()


def test_only_regular_files_of_a_possible_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "vast").open("wb") as file:
        file.write(MAGIC + (1).to_bytes(2, "little"))
        file.truncate(2**40)
    for name, words in [("pipe", "not a regular file"), ("", "Is a directory"), ("vast", "no packed net has more")]:
        with pytest.raises(BadProduct, match=words):
            inspect(tmp_path / name)
    with pytest.raises(BadProduct, match="not a regular file"):
        unpack(packed_file.Path("/dev/zero"))


def test_a_mask_code_cannot_overflow():
    """A gap of (2^25 - 1) 2^39 + 2^39 - 1 = 2^64 - 1 is minus one in 64 bits, the last place of a layer."""
    unary = np.packbits(np.r_[np.ones(2**25 - 1, np.uint8), np.uint8(0)]).tobytes()
    with pytest.raises(ValueError, match="outside the 33554440 of the layer"):
        sparse_code.decode(unary + b"\xff" * 5, 39, 2**25 + 8, 1)


def test_the_three_commands(tmp_path, trained, capsys):
    run = RUNS["frozen"]
    trained(run)
    record, packed = record_path(trained.folder, run), tmp_path / "net.ipb"
    assert main(["pack", str(record), "--out", str(packed)]) == 0
    assert main(["inspect", str(packed), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out.partition("fewer\n")[2])
    assert shown["total"] == packed.stat().st_size and shown["header"]["off"] == "frozen" and "effective" not in shown
    assert main(["inspect", str(packed), "--json", "--effective"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["effective"] == read_json(record)["effective"]
    assert main(["inspect", str(packed), "--effective"]) == 0
    assert f"effective coefficients: {shown['effective']['coefficients']:,}\n" in capsys.readouterr().out
    assert main(["unpack", str(packed), "--out", str(tmp_path / "net.safetensors")]) == 0
    assert main(["pack", str(record), "--out", str(tmp_path / "x"), "--values", "fp8"]) == 2
    assert "unknown type of values 'fp8'" in capsys.readouterr().err and not (tmp_path / "x").exists()
    end_path(trained.folder, run).rename(tmp_path / "away")
    assert main(["pack", str(record), "--out", str(tmp_path / "x")]) == 2
    assert "`ipbench run --keep`" in capsys.readouterr().err
    (tmp_path / "away").rename(end_path(trained.folder, run))
    assert packed.read_bytes().startswith(MAGIC)


@settings(deadline=None, max_examples=200, derandomize=True, database=None)
@given(st.integers(0, 600), st.floats(0, 1), st.integers(0, 2**32))
def test_masks_come_back(size, density, seed):
    mask = np.random.default_rng(seed).random(size) < density
    bits, data = sparse_code.encode(mask)
    assert (sparse_code.decode(data, bits, size, int(mask.sum())) == mask).all()
    assert len(data) <= (size + 7) // 8
    bits, data = sparse_code.encode(mask | (density > 0.5), whole=True)
    assert (sparse_code.decode(data, bits, size, int((mask | (density > 0.5)).sum())) == (mask | (density > 0.5))).all()


@settings(deadline=None, max_examples=200, derandomize=True, database=None)
@given(st.binary(max_size=40), st.integers(0, 255), st.integers(0, 300), st.integers(0, 300))
def test_random_bytes_are_a_mask_or_refused(data, bits, size, kept):
    with suppress(ValueError):
        mask = sparse_code.decode(data, bits, size, kept)
        assert int(mask.sum()) == kept and mask.shape == (size,)
