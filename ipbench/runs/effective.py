"""What a record tells of the coefficients that are connected: the key `effective`, beside the outcome."""

from __future__ import annotations

from typing import Any

from ipbench import output
from ipbench.errors import BadInput
from ipbench.sparse import measure, spaces
from ipbench.sparse.effective import effective
from ipbench.sparse.net import SparseNet


def describe_effective(net: SparseNet) -> dict[str, Any]:
    """Effective coefficients of a net at the end of its run, with the counts that follow from them.

    Args:
        net: as the run leaves it.

    Returns:
        `sparsity`: 1 - (effective coefficients + entries of trained FBs) / prunable, as the achieved one is formed;
        `coefficients`; `macs` and `macs_two_stage` of one image, as `macs_sparse` and `macs_sparse_two_stage` are
        formed; `layers`: the effective coefficients of the layers of which more is kept. Where there are any,
        `whole_layers` and `mixing` as in `sparse.effective.Effective`. Where channels cannot be followed, `reason`
        alone: a training that is finished is not lost for a count.
    """
    try:
        found = effective(net)
        total = sum(found.kept.values())
        with_basis = [name for name, layer in net.layers.items() if spaces.filter_basis(layer) is not None]
        return {
            "sparsity": 1 - (total + net.basis_entries) / net.prunable,
            "coefficients": total,
            "macs": measure.sparse_macs(net.counted.layers, found.kept),
            "macs_two_stage": measure.two_stage_macs(net.now.layers, found.kept, with_basis),
            "layers": {name: number for name, number in found.kept.items() if number != int(net.masks[name].sum())},
            **({"whole_layers": list(found.whole_layers)} if found.whole_layers else {}),
            **({"mixing": list(found.mixing)} if found.mixing else {}),
        }
    except BadInput as error:
        reason = str(error)
    except Exception as error:  # a mistake of ours, which is told and does not cost the training
        reason = f"{type(error).__name__}: {error}"
        output.complain(f"ipbench: run {net.run.id}: effective coefficients could not be counted: {reason}")
    return {"reason": " ".join(reason.split())[:300]}
