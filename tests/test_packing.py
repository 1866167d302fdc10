"""Packed nets: bit-equal outputs, the storage claim in bytes, one line for every broken file."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipbench import sparse_code
from ipbench.cli import main
from ipbench.errors import BadProduct
from ipbench.models.build import build
from ipbench.packed_file import MAGIC
from ipbench.packing import inspect, pack, plain_state, unpack
from ipbench.resume import End, read_end
from ipbench.running import Environment, end_path, execute, record_path
from ipbench.sparse_net import SparseNet
from ipbench.spec import Basis, Recipe, Run

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


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: b"", "not a packed net"),
        (lambda c: c[:9], "checksum does not match|format"),
        (lambda c: c[:-1], "checksum does not match, the file was cut off or altered"),
        (lambda c: c[: len(c) // 2], "checksum does not match"),
        (lambda c: c[:100] + bytes([c[100] ^ 1]) + c[101:], "checksum does not match"),
        (lambda c: reseal(c[:8] + (2).to_bytes(2, "little") + c[10:]), "packed in format 2; this version"),
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
        (lambda c: changed_header(c, code="import os"), "unknown key"),
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


def test_the_three_commands(tmp_path, trained, capsys):
    run = RUNS["frozen"]
    trained(run)
    record, packed = record_path(trained.folder, run), tmp_path / "net.ipb"
    assert main(["pack", str(record), "--out", str(packed)]) == 0
    assert main(["inspect", str(packed), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out.partition("fewer\n")[2])
    assert shown["total"] == packed.stat().st_size and shown["header"]["off"] == "frozen"
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


@settings(deadline=None, max_examples=200, derandomize=True, database=None)
@given(st.binary(max_size=40), st.integers(0, 255), st.integers(0, 300), st.integers(0, 300))
def test_random_bytes_are_a_mask_or_refused(data, bits, size, kept):
    with suppress(ValueError):
        assert int(sparse_code.decode(data, bits, size, kept).sum()) == kept
