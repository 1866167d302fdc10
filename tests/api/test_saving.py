"""Plain, sliced and packed nets of one's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ipbench
from ipbench.cli.main import main
from ipbench.errors import BadInput, BadProduct
from tests.api.nets import BATCH, IMAGES, Words, fit, held, moved, values
from tests.tiny import tiny_conv, tiny_stack


def trained(space: str = "sp", **more) -> ipbench.Pruned:
    net = ipbench.prune(tiny_stack(), "snip", 0.5, space=space, batch=BATCH, **more)
    fit(net, torch.optim.AdamW(net.parameters(), lr=0.02, weight_decay=0.1))
    return net.eval()


@pytest.mark.parametrize("more", [{}, {"off": "frozen"}, {"pattern": "channels"}, {"pattern": "2:4"}])
@pytest.mark.parametrize("space", ["sp", "ip"])
def test_the_plain_net(space, more):
    net = trained(space, **more)
    plain = net.plain()
    assert type(plain) is nn.Sequential and type(plain[0]) is nn.Conv2d
    assert plain.state_dict().keys() == tiny_stack().state_dict().keys()
    assert torch.equal(plain(IMAGES), net(IMAGES))
    if space == "sp" and net.masked.run.off == "zero":
        assert all(not plain[int(name)].weight[~mask].any() for name, mask in net.masks.items())


@pytest.mark.parametrize("pattern", ["filters", "channels"])
@pytest.mark.parametrize("space", ["sp", "ip"])
def test_the_sliced_net(space, pattern):
    net = trained(space, pattern=pattern)
    small, plain = net.slice(), net.plain()
    assert type(small) is nn.Sequential and small[0].out_channels < 8 and plain[0].out_channels == 8
    assert small[0].out_channels == small[1].num_features == small[3].in_channels == len(small[0].weight)
    torch.testing.assert_close(small(IMAGES), net(IMAGES))
    optimiser = torch.optim.SGD(small.parameters(), lr=0.1)
    fit(small.train(), optimiser)  # an ordinary net


@pytest.mark.parametrize("more", [{}, {"pattern": "2:4"}, {"pattern": "filters", "off": "frozen"}])
def test_what_removes_no_channels_is_not_sliced(more):
    with pytest.raises(BadInput, match=r"^slice: pattern .* removes no channels"):
        trained(**more).slice()


@pytest.mark.parametrize(
    "more", [{}, {"off": "frozen"}, {"pattern": "channels"}, {"pattern": "2:4"}, {"skip": ["3"], "seed": 2}]
)
@pytest.mark.parametrize("space", ["sp", "ip"])
def test_a_packed_net_is_the_same_net(tmp_path, space, more):
    net, path = trained(space, **more), tmp_path / "net.ipb"
    sizes = net.save(path)
    assert sizes.total == path.stat().st_size
    model = tiny_stack(seed=5)
    found = ipbench.load(path, model)
    assert torch.equal(found(IMAGES), net(IMAGES)) and found.masked.run == net.masked.run
    assert all(torch.equal(mask, net.masks[name]) for name, mask in found.masks.items())
    one, two = found.report(), net.report()
    assert (one.reached, one.left_out, one.whole, one.layers) == (two.reached, two.left_out, two.whole, two.layers)
    assert torch.equal(model[0].weight, tiny_stack(seed=5)[0].weight)  # that of the user stays
    if "pattern" in more and more["pattern"] == "channels":
        assert torch.equal(found.slice()(IMAGES), net.slice()(IMAGES))
    before = values(found)
    fit(found.train(), torch.optim.SGD(found.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1))
    assert held(found, before) and moved(found, before)


def test_values_in_half_precision_are_smaller(tmp_path):
    net = trained()
    full, half = net.save(tmp_path / "full"), net.save(tmp_path / "half", values="bf16")
    assert half.parts["values"] * 2 == full.parts["values"]
    torch.testing.assert_close(ipbench.load(tmp_path / "half", tiny_stack())(IMAGES), net(IMAGES), atol=0.05, rtol=0.05)
    with pytest.raises(BadInput, match="unknown type of values 'int8' in save"):
        net.save(tmp_path / "net", values="int8")
    with torch.no_grad():
        net.net[9].bias[0] = torch.nan
    with pytest.raises(BadInput, match=r"9\.bias: nan cannot be packed"):
        net.save(tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_a_sparse_file_is_small(tmp_path):
    model = nn.Sequential(nn.Linear(64, 512, bias=False), nn.Linear(512, 64, bias=False))
    net = ipbench.prune(model, "magnitude", 0.99)
    assert net.save(tmp_path / "net").total < 0.03 * 4 * 2 * 64 * 512


class Other(nn.Sequential):
    """The same tensors in a module of another kind."""


@pytest.mark.parametrize(
    "model",
    [tiny_conv(), Words(), Other(*tiny_stack()), nn.Sequential(*tiny_stack()[:-1]), tiny_stack().double()],
    ids=["shapes", "names", "kind", "missing", "types"],
)
def test_another_net_is_refused(tmp_path, model):
    trained().save(tmp_path / "net.ipb")
    with pytest.raises(BadInput, match=r"net.ipb: holds a Sequential of .* have to be the same$") as caught:
        ipbench.load(tmp_path / "net.ipb", model)
    assert "\n" not in str(caught.value)


def test_tied_weights_are_told_from_separate_ones(tmp_path):
    def net(tied: bool) -> nn.Module:
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        if tied:
            layers[1].weight = layers[0].weight
        return layers

    ipbench.prune(net(True), "magnitude", 0.5).save(tmp_path / "tied")
    found = ipbench.load(tmp_path / "tied", net(True))
    assert found.net[0].weight is found.net[1].weight
    with pytest.raises(BadInput, match="have to be the same"):
        ipbench.load(tmp_path / "tied", net(False))


def test_files_that_are_not_whole(tmp_path, capsys):
    path = tmp_path / "net.ipb"
    trained("ip", pattern="channels").save(path)
    content = path.read_bytes()
    for altered, message in (
        (content[:-1], "checksum does not match"),
        (content[:40] + b"x" + content[41:], "checksum does not match"),
        (b"PK\x03\x04" + content[4:], "not a packed net"),
        (b"", "not a packed net"),
    ):
        path.write_bytes(altered)
        with pytest.raises(BadProduct, match=message):
            ipbench.load(path, tiny_stack())
    path.write_bytes(content)
    assert main(["inspect", str(path)]) == 2
    assert "holds a net of its user's own: in Python, `ipbench.load(path, model)`" in capsys.readouterr().err
    with pytest.raises(BadProduct, match="No such file"):
        ipbench.load(tmp_path / "none", tiny_stack())
    with pytest.raises(BadInput, match="is wanted, not a type"):
        ipbench.load(path, nn.Sequential)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h["layers"][0].__setitem__(0, 9999), "are not a code of 9999"),
        (lambda h: h["layers"].pop(), "3 layers, where the model has 4"),
        (lambda h: h["run"].update(space="xp"), "header: run: space"),
        (lambda h: h.update(values="int8"), "its values are of type 'int8'"),
        (lambda h: h.update(code="import os"), "header: unknown key|unknown key"),
        (lambda h: h["left_out"].update({"3": "x"}), "4 layers, where the model has 3"),
        (lambda h: h["cut"].update({"nowhere.weight": {"0": [8, "f0"]}}), "that can be cut"),
        (lambda h: h["cut"].update({"0.weight": {"0": [9, "f000"]}}), "that can be cut"),
        (lambda h: h["cut"].update({"0.weight": {"0": [8, "ff"]}}), "that can be cut"),
        (lambda h: h["cut"].update({"0.weight": {"7": [8, "f0"]}}), "that can be cut"),
        (lambda h: h["run"].update(off="frozen"), "header: run|ends too early"),
    ],
)
def test_headers_that_claim_what_cannot_be(tmp_path, change, message):
    import hashlib
    import json

    path = tmp_path / "net.ipb"
    trained(pattern="channels").save(path)
    content = path.read_bytes()[:-32]
    length = int.from_bytes(content[10:14], "little")
    header = json.loads(content[14 : 14 + length])
    change(header)
    text = json.dumps(header).encode()
    content = content[:10] + len(text).to_bytes(4, "little") + text + content[14 + length :]
    path.write_bytes(content + hashlib.sha256(content).digest())
    with pytest.raises(BadProduct, match=message) as caught:
        ipbench.load(path, tiny_stack())
    assert "\n" not in str(caught.value)


def test_checkpoints_of_torch(tmp_path):
    """A state is plain tensors: `weights_only` reads it, and masks come with it."""
    net = trained("ip", pattern="channels")
    torch.save(net.state_dict(), tmp_path / "state")
    other = ipbench.prune(tiny_stack(seed=4), "magnitude", 0.2, space="ip", pattern="channels", inputs=IMAGES)
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert torch.equal(other.eval()(IMAGES), net(IMAGES)) and torch.equal(other.slice()(IMAGES), net.slice()(IMAGES))
    frozen = trained(off="frozen")
    other = ipbench.prune(tiny_stack(seed=4), "random", 0.5, off="frozen", seed=1)
    other.load_state_dict(frozen.state_dict())
    before = values(other)
    fit(other, torch.optim.SGD(other.parameters(), lr=0.1, weight_decay=0.5))
    assert held(other, before) and all(torch.equal(m, frozen.masks[name]) for name, m in other.masks.items())
    with pytest.raises(BadInput, match="the masks are those of another net"):
        ipbench.prune(tiny_conv(), "random", 0.5).load_state_dict(frozen.state_dict(), strict=False)
