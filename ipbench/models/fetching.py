"""Weights that others have trained, fetched by name: once, by a command of its own, into a safetensors file.

A run reads that file alone. torchvision's weights come as pickled files: they are read here by torch's reader of plain
tensors (`weights_only`), after their checksum.
"""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from pathlib import Path

import torch

from ipbench import store
from ipbench.errors import BadInput, valid_choice
from ipbench.models import catalog, own
from ipbench.spec import NAME


def fetch(model: str, name: str, root: Path) -> Path:
    """Download the weights of a known model, unless they are there.

    Args:
        model: one of torchvision's, or timm/NAME.
        name: as torchvision or timm has it, e.g. IMAGENET1K_V1 or a1_in1k.
        root: the data folder.

    Returns:
        The file.

    Raises:
        BadInput: there is no such model, or none with such weights; or they cannot be downloaded.
    """
    base = catalog.check(model, "MODEL")
    if catalog.shipped(base):
        raise BadInput(f"MODEL: {base} is ipbench's own net, for which nobody offers weights; give a file to --weights")
    if name == "DEFAULT" or not NAME.fullmatch(name):
        raise BadInput(f"NAME: {name!r:.80}: what it means changes, or it is no name; valid: {', '.join(names(base))}")
    path = own.weights_path(base, valid_choice(name, names(base), "weights", f"those of {model}"), root)
    if not path.exists():
        from safetensors.torch import save

        try:
            state = download(base, name)
        except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong checksum a RuntimeError
            said = " ".join(str(error).split()) or type(error).__name__
            raise BadInput(
                f"{model}: could not download the weights {name} ({said:.200}); on a machine that can, give the same"
                f" command, and bring {path} here"
            ) from None
        plain = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in state.items()}
        store.write_bytes(path, save(plain))
    return path


def names(base: str) -> list[str]:
    """The weights that there are of a model of torchvision's or timm's."""
    if base.startswith(catalog.TIMM):
        import timm

        architecture = base.removeprefix(catalog.TIMM)
        return sorted(name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*"))
    import torchvision.models

    return sorted(torchvision.models.get_model_weights(base).__members__.keys() - {"DEFAULT"})


def download(base: str, name: str) -> dict[str, torch.Tensor]:
    """The tensors of a model's weights, from where torchvision or timm has them."""
    if base.startswith(catalog.TIMM):
        import timm

        made = timm.create_model(f"{base.removeprefix(catalog.TIMM)}.{name}", pretrained=True)
        return dict(made.state_dict())
    import torchvision.models

    found = torchvision.models.get_model_weights(base)[name]
    with redirect_stderr(io.StringIO()):  # it would say where from and where to
        state: dict[str, torch.Tensor] = found.get_state_dict(progress=False, check_hash=True, weights_only=True)
    return state
