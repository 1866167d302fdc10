"""ipbench: a reproducibility benchmark for neural-network pruning.

Importing this package, or anything that only plans or reads results, does not import torch. What nets of one's own
need (`prune`, `load`, `Pruned`, `Report`, `Inputs`) is imported when it is first asked for; docs/own-nets.md tells how
to use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipbench.api import Inputs, Pruned, Report, load, prune

__all__ = ["Inputs", "Pruned", "Report", "load", "prune"]

__version__ = "0.2.0"

#: Raised by one whenever a change gives all runs other numbers under the same identity. A change that touches some of
#: them stands in `ipbench.planning.numerics`, which gives the number that a record holds.
NUMERICS = 1


def __getattr__(name: str) -> Any:
    if name in __all__:
        from ipbench import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
