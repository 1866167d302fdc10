import subprocess
import sys

import pytest

from ipbench.errors import BadInput
from ipbench.models import catalog


def test_our_names_need_neither_torch_nor_torchvision():
    code = (
        "import sys; from ipbench.models import catalog; [catalog.check(name) for name in catalog.MODELS];"
        "sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=300).returncode == 0


@pytest.mark.parametrize("name", ["resnet56-cifar", "resnet50", "mobilenet_v2", "vit_b_16"])
def test_known(name):
    assert catalog.known(name)
    assert catalog.check(name) == name


@pytest.mark.parametrize(
    "name", ["", "ResNet50", "maskrcnn_resnet50_fpn", "fcn_resnet50", "r3d_18", "quantized_resnet50"]
)
def test_only_classification_models_of_torchvision_and_two_detectors(name):
    assert not catalog.known(name)


@pytest.mark.parametrize(("name", "near"), [("resnet57-cifar", "resnet56-cifar"), ("mobilnet_v2", "mobilenet_v2")])
def test_unknown_is_one_short_line(name, near):
    with pytest.raises(BadInput) as error:
        catalog.check(name, "x.yaml: model")
    line = str(error.value)
    assert line.startswith(
        f"unknown model {name!r} in x.yaml: model (did you mean {near!r}?); valid: googlenet-cifar, "
    )
    assert line.endswith("any classification model of torchvision, timm/NAME, a --model-file")
    assert "\n" not in line and len(line) < 450
