"""What is tried on a copy of the net before a training begins, so that it is refused in one line."""

from __future__ import annotations

import torch
from torch import nn

from ipbench.data.loaders import Batch, Data
from ipbench.errors import BadInput
from ipbench.sparse.net import SparseNet
from ipbench.store import tensors_digest
from ipbench.training.loop import Sgd, _precision

#: Pooling whose backward pass has no deterministic algorithm on GPUs, unless it leaves one position.
_ADAPTIVE = (nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
#: The same, whatever it leaves.
_NEVER = (nn.AvgPool3d, nn.MaxPool3d, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)

#: Settings in which two equal steps were seen by this process.
_seen: set[tuple[str, ...]] = set()


def check_share(net: SparseNet, data: Data) -> None:
    """Whether the net can be trained on one image at a time, if that is a process's share of a batch.

    Raises:
        BadInput: batch norm would see a single value per channel.
    """
    if data.recipe.batch_size > data.world:
        return
    parameter = next(net.parameters())
    try:
        with net.scratch() as twin, torch.no_grad():
            twin(torch.zeros(1, *data.shape, device=parameter.device))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise BadInput(
            f"{data.name}: batch_size is {data.recipe.batch_size}, one image for each of {data.world} processes, and"
            f" batch norm in {net.run.model} needs two; it must be {2 * data.world} or more"
        ) from None


def check_strict(net: SparseNet, data: Data) -> None:
    """Whether mode `strict` can be promised: once per process and setting, two steps from one state are compared.

    Nothing is checked in mode `fast`, nor on the CPU.

    Raises:
        BadInput: a layer has no deterministic algorithm, or the steps differ.
    """
    device, run = next(net.parameters()).device, net.run
    setting = (run.dataset, run.model, run.space, run.recipe.precision, str(device))
    if run.mode != "strict" or device.type != "cuda" or setting in _seen:
        return
    if names := without_deterministic(net.net):
        raise BadInput(
            f"mode strict: {run.model} has layers without a deterministic algorithm on GPUs: {', '.join(names)}; take"
            " mode fast, the CPU, or another model"
        )
    batch = next(iter(data.train(0)))
    try:
        equal = equal_steps(net, batch)
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise BadInput(
            f"mode strict: {run.model} cannot be trained so on GPUs, take mode fast: {error!s:.200}"
        ) from None
    if not equal:
        major, minor = torch.cuda.get_device_capability(device)
        raise BadInput(
            f"mode strict: two steps of {run.model} from one state differ, with cuDNN {torch.backends.cudnn.version()}"
            f" on sm_{major}{minor}; take mode fast, or another version of cuDNN"
        )
    _seen.add(setting)


def without_deterministic(net: nn.Module) -> list[str]:
    """Names of the layers whose backward pass has no deterministic algorithm on GPUs, as far as their type tells."""
    return [
        name
        for name, module in net.named_modules()
        if isinstance(module, _NEVER)
        or (isinstance(module, _ADAPTIVE) and module.output_size not in (1, (1, 1), (1, 1, 1)))
    ]


def equal_steps(net: SparseNet, batch: Batch) -> bool:
    """Whether two steps of SGD on a batch, from the state of `net`, give equal bits when they are done twice.

    Args:
        net: not changed, nor are the generators.
        batch: of a training step.
    """
    recipe, task, digests = net.run.recipe, net.task, set()
    for _ in range(2):
        with net.scratch() as twin:
            optimiser = Sgd(twin, recipe, {})
            for _ in range(2):
                twin.zero_grad(set_to_none=True)
                with _precision(recipe, batch.images):
                    outputs = task.outputs(twin, batch, net.run.seed, 0)
                task.loss(outputs, batch).backward()
                twin.mask_gradients(recipe.weight_decay)
                optimiser.step(recipe.lr)
            digests.add(tensors_digest(twin.tensors()))
    return len(digests) == 1
