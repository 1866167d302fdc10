"""`ipbench count`: parameters and multiply-accumulates of a model, layer by layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ipbench import numerals, output
from ipbench.cli import own
from ipbench.cli.arguments import AsJson, whole
from ipbench.errors import BadInput
from ipbench.models import catalog as models
from ipbench.models.own import own_of

app = typer.Typer()

#: Values of an image whose net is counted.
_LARGEST_IMAGE = 2**22


@app.command()
def count(
    model: Annotated[str, typer.Argument(help="A model by name; of --model-file, the function in it.")],
    shape: Annotated[str, typer.Option("--input", help="Of one image: CxHxW, e.g. 3x32x32.")],
    classes: Annotated[
        int | None,
        typer.Option(
            help="10 for our models and yours, 80 for detectors, 1000 for other models of torchvision and timm.",
            parser=whole(1, 100_000),
        ),
    ] = None,
    model_file: own.ModelFile = None,
    as_json: AsJson = False,
) -> None:
    """Count parameters and multiply-accumulates, layer by layer."""
    net = own.the_model(model, model_file, None, None, model, Path("data"), "MODEL")
    try:
        channels, height, width = map(numerals.whole, shape.lower().split("x"))
        if min(channels, height, width) < 1 or max(channels, height, width) > 4096:
            raise ValueError
    except ValueError:
        raise BadInput(f"--input: {shape!r:.80} is not of the form CxHxW, e.g. 3x32x32") from None
    if channels * height * width > _LARGEST_IMAGE:
        raise BadInput(f"--input: {shape} is too large; an image has at most {_LARGEST_IMAGE} values")
    from ipbench.models.build import outline
    from ipbench.sparse.measure import count as count_net

    small = model_file is not None or net in models.MODELS or net.endswith("-small")
    outputs = classes or (10 if small else 80 if net in models.DETECTORS else 1000)
    size = channels, height, width
    counted = count_net(outline(net, size, outputs, own_of(net)), size)
    if as_json:
        layers = [
            {"name": layer.name, "kind": layer.kind, "shape": list(layer.shape), "parameters": layer.parameters,
             "macs": layer.macs}
            for layer in counted.layers
        ]  # fmt: skip
        facts = {"prunable": counted.prunable, "not_prunable": counted.not_prunable, "unused_layers": counted.unseen}
        told = {"parameters": counted.parameters, "macs": counted.macs, **facts, "layers": layers}
        output.say(json.dumps(told, indent=1))
        return
    for layer in counted.layers:
        output.say(f"{layer.name:32} {'x'.join(map(str, layer.shape)):>18} {layer.parameters:>12,} {layer.macs:>16,}")
    output.say(f"{'all parameters, multiply-accumulates':51} {counted.parameters:>12,} {counted.macs:>16,}")
    output.say(f"{'prunable weights':51} {counted.prunable:>12,}")
    for name, entries in counted.not_prunable.items():
        output.say(f"{f'not prunable: {name}':51} {entries:>12,}")
    if counted.unseen:
        output.say(f"not used by an evaluated image: {', '.join(counted.unseen)}")
