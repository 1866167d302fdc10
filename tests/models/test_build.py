import pytest
import torch
from torch import nn

from ipbench.errors import BadInput
from ipbench.models import catalog
from ipbench.models.build import _OWN, _Own, build, outline
from ipbench.models.googlenet import Inception
from ipbench.models.resnet import PaddedShortcut
from ipbench.sparse.measure import count


def parameters(net: nn.Module) -> int:
    return sum(tensor.numel() for tensor in net.parameters())


def test_catalogue_and_builders_agree():
    assert set(_OWN) == set(catalog.MODELS)


@pytest.mark.parametrize("name", catalog.MODELS)
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 40, 33)])
def test_ours_take_grey_and_colour_and_odd_sizes(name, shape):
    net = outline(name, shape, 7)
    assert net.training
    assert net(torch.zeros(2, *shape, device="meta")).shape == (2, 7)


@pytest.mark.parametrize(
    "name", ["lenet-300-100", "small-vgg", "resnet18-cifar", "resnet20-cifar", "googlenet-cifar", "mobilenet-v1"]
)
@pytest.mark.parametrize("side", [1, 7, 8, 16])
def test_small_images(name, side):
    net = outline(name, (1, side, side), 3).eval()
    assert net(torch.zeros(1, 1, side, side, device="meta")).shape == (1, 3)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("lenet-300-100", (1, 28, 28), 266_610),
        ("lenet5-caffe", (1, 28, 28), 431_080),
        ("vgg13-cifar", (3, 32, 32), 9_416_010),
        ("vgg16", (3, 32, 32), 14_715_584 + 10 + 2 * 4_224),
        ("vgg16-d", (3, 32, 32), 15_239_872 + 5_258 + 10_496),
        ("resnet18-cifar", (3, 32, 32), 11_173_962),
        ("resnet34-cifar", (3, 32, 32), 21_282_122),
        ("vgg19", (3, 32, 32), 20_035_018),
        ("googlenet-cifar", (3, 32, 32), 6_158_346),
        ("mobilenet-v1", (3, 32, 32), 3_217_226),
        ("resnet20-cifar", (3, 32, 32), 269_722),
        ("resnet32-cifar", (3, 32, 32), 464_154),
        ("resnet56-cifar", (3, 32, 32), 853_018),
        ("resnet110-cifar", (3, 32, 32), 1_727_962),
    ],
)
def test_parameters(name, shape, expected):
    assert parameters(outline(name, shape, 10)) == expected


@pytest.mark.parametrize(("side", "first"), [(16, (1, 1)), (17, (2, 2))])
def test_small_vgg_strides(side, first):
    net = build("small-vgg", (1, side, side), 10, seed=0)
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert [conv.stride for conv in convs] == [first, (1, 1), (2, 2), (1, 1), (2, 2), (1, 1)]
    assert [conv.out_channels for conv in convs] == [32, 32, 64, 64, 128, 128]
    assert all(conv.bias is None for conv in convs)


def test_vgg19_ends_with_a_mean():
    net = outline("vgg19", (3, 32, 32), 10)
    stages = list(net.children())[:5]
    assert [sum(isinstance(layer, nn.Conv2d) for layer in stage) for stage in stages] == [2, 2, 4, 4, 4]
    assert [stage[-1].__class__.__name__ for stage in stages] == ["MaxPool2d"] * 4 + ["ReLU"]
    assert net[:5](torch.zeros(1, 3, 32, 32, device="meta")).shape == (1, 512, 2, 2)


def test_mobilenet_by_its_table():
    """Sizes and channels after the stem and after each pointwise convolution (arXiv:1704.04861, table 1), 224 px."""
    net, x, sizes = outline("mobilenet-v1", (3, 112, 112), 1000), torch.zeros(1, 3, 112, 112, device="meta"), []
    for part in list(net.children())[:14]:
        x = part(x)
        sizes.append(tuple(x.shape[1:3]))
    assert sizes == [
        (32, 112), (64, 112), (128, 56), (128, 56), (256, 28), (256, 28), (512, 14),
        *[(512, 14)] * 5, (1024, 7), (1024, 7),
    ]  # fmt: skip
    assert all(net.get_submodule(f"block{k}.depthwise").groups == net.get_submodule(f"block{k}.depthwise").in_channels
               for k in range(1, 14))  # fmt: skip


def test_inception_puts_its_branches_side_by_side():
    """Each branch alone: constant by its last norm's bias, in the order 1x1, 3x3, 5x5, pooling."""
    block = Inception(3, 1, 2, 2, 2, 1, 3).eval()
    branches = (block.branch1x1, block.branch3x3, block.branch5x5, block.branch_pool)
    for number, branch in enumerate(branches, start=1):
        norm = [layer for layer in branch if isinstance(layer, nn.BatchNorm2d)][-1]
        nn.init.zeros_(norm.weight)
        nn.init.constant_(norm.bias, number)
    y = block(torch.rand(1, 3, 5, 4))
    assert y.shape == (1, block.width, 5, 4)
    assert y[0, :, 2, 2].tolist() == [1, 2, 2, 3, 4, 4, 4]


def test_googlenet_by_its_table():
    """Channels and sizes after each inception block (arXiv:1409.4842, table 1); sizes are those of 32 px."""
    net, x, sizes = outline("googlenet-cifar", (3, 32, 32), 10), torch.zeros(1, 3, 32, 32, device="meta"), []
    for part in list(net.children())[:-3]:
        x = part(x)
        if isinstance(part, Inception):
            sizes.append(tuple(x.shape[1:3]))
    assert sizes == [
        (256, 32), (480, 32), (512, 16), (512, 16), (512, 16), (528, 16), (832, 16), (832, 8), (1024, 8),
    ]  # fmt: skip


def test_padded_shortcut():
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    y = PaddedShortcut(1, 3, 2)(x)
    assert y.tolist() == [[[[0, 2], [6, 8]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]]]


@pytest.mark.parametrize("name", ["small-vgg", "resnet20-cifar", "shufflenet_v2_x0_5"])
def test_keyed(name):
    state = torch.get_rng_state()
    one = build(name, (3, 64, 64), 10, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    two = build(name, (3, 64, 64), 10, seed=5).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    other = build(name, (3, 64, 64), 10, seed=6).state_dict()
    changed = {key for key in one if not torch.equal(one[key], other[key])}
    assert changed == {key for key in one if key.endswith("weight") and one[key].dim() > 1}


def test_parameters_of_other_kinds_are_keyed_too(monkeypatch):
    tokens = _Own(lambda shape, classes: nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, classes)))
    monkeypatch.setitem(_OWN, "small-vgg", tokens)
    one, two, other = (build("small-vgg", (1, 1, 1), 2, seed=seed)[0].weight for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_layers_of_one_name_are_shared_between_nets():
    one, two = (build(name, (3, 32, 32), 10, seed=0) for name in ("resnet20-cifar", "resnet56-cifar"))
    name = "stage1.block3.conv2.weight"
    assert torch.equal(one.state_dict()[name], two.state_dict()[name])


def test_scheme_is_passed_on():
    one = build("lenet-300-100", (1, 8, 8), 10, seed=0, scheme="xavier_normal")
    two = build("lenet-300-100", (1, 8, 8), 10, seed=0)
    assert not torch.equal(one.fc1.weight, two.fc1.weight)


@pytest.mark.parametrize("name", [*catalog.MODELS, "shufflenet_v2_x0_5", "regnet_y_400mf", "mnasnet0_5"])
def test_an_outline_is_the_model_without_values(name):
    shape, state = (3, 64, 64), torch.get_rng_state()
    net, full = outline(name, shape, 10), build(name, shape, 10, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(tensor.is_meta for tensor in net.state_dict().values())
    shapes = [{key: (t.shape, t.dtype) for key, t in made.state_dict().items()} for made in (net, full)]
    assert shapes[0] == shapes[1]
    if name in ("lenet5-caffe", "small-vgg", "resnet20-cifar", "shufflenet_v2_x0_5"):
        assert count(net, shape) == count(full, shape)


def test_an_outline_takes_no_memory():
    net = outline("vit_h_14", (3, 224, 224), 1000)  # 2.5 GB
    assert sum(tensor.numel() for tensor in net.parameters()) == 632_045_800


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_torchvision_without_auxiliary_outputs(name):
    net = outline(name, (3, 96, 96), 4)
    assert net.training and isinstance(net(torch.zeros(2, 3, 96, 96, device="meta")), torch.Tensor)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("lenet5-caffe", (1, 8, 8), "at least 16 x 16 pixels .got 8 x 8."),
        ("vgg19", (3, 15, 32), "at least 16 x 16 pixels .got 15 x 32."),
        ("vgg16", (3, 32, 28), "at least 32 x 32 pixels .got 32 x 28."),
        ("resnet18", (1, 32, 32), "takes images of 3 channels .got 1."),
        ("vit_b_32", (3, 32, 32), "cannot take images of 32 x 32 pixels: Wrong image height"),
        ("alexnet", (3, 32, 32), "cannot take images of 32 x 32 pixels"),
        ("resnet57-cifar", (3, 32, 32), "did you mean 'resnet56-cifar'"),
    ],
)
def test_bad_input_is_one_line(name, shape, words):
    with pytest.raises(BadInput, match=words) as error:
        build(name, shape, 10, seed=0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("shape", "classes"), [((0, 8, 8), 10), ((8, 8), 10), ((1, 8, 8), 0)])
def test_not_a_shape(shape, classes):
    with pytest.raises(ValueError, match="not a shape"):
        build("lenet-300-100", shape, classes, seed=0)
