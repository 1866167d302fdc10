"""A net as ONNX, for whatever runs such files."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from ipbench.errors import BadInput

#: Of inputs and outputs; the first axis of both is the batch, of any size.
INPUT, OUTPUT = "images", "logits"
#: Version of ONNX's operators: read by everything of the last years.
OPSET = 17


def onnx_content(net: nn.Module, shape: tuple[int, int, int]) -> bytes:
    """A net in evaluation mode as the bytes of an ONNX file.

    Args:
        net: a plain module on the CPU that maps `images` of shape (N, C, H, W) to `logits` of shape (N, classes).
        shape: of one image, (C, H, W).

    Raises:
        BadInput: the net is a detector, the package `onnx` is missing, or an operator of the net has no form in ONNX.
    """
    if hasattr(net, "outputs"):
        raise BadInput(
            "the net cannot be written as ONNX: it is a detector, whose boxes are made of its outputs outside of it"
        )
    if importlib.util.find_spec("onnx") is None:
        raise BadInput("ONNX files need the package onnx: pip install 'ipbench[export]'")
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        file = Path(folder) / "net.onnx"
        # The exporter by tracing needs no other package than onnx. Torch calls it legacy, and tells of every shape that
        # it does not know.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                net.eval(),
                (torch.zeros(2, *shape),),
                file,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise BadInput(f"the net cannot be written as ONNX: {line:.300}") from None
        return file.read_bytes()
