"""Which stages have a meaning for which patterns."""

from __future__ import annotations

from ipbench.methods._stages import Choose, Continue, External, Prune, Stage, Train
from ipbench.spec import COEFFICIENTS, n_of_m


def without_meaning(stage: Stage, pattern: str) -> str:
    """Why a stage has no meaning for a pattern; empty if it has one.

    Args:
        stage: of a method.
        pattern: of a run.
    """
    if isinstance(stage, Choose) and stage.patterns and pattern not in stage.patterns:
        return (
            f"chooses {stage.name}, which pattern {pattern} does not keep; take pattern {' or '.join(stage.patterns)}"
        )
    if isinstance(stage, External) and stage.patterns and pattern not in stage.patterns:
        return f"its rule is not for pattern {pattern}; take pattern {' or '.join(stage.patterns)}"
    kept = stage.update.patterns if isinstance(stage, Train) and stage.update else ()
    if kept and pattern not in kept:
        return f"removes what pattern {pattern} does not keep as one; take pattern {' or '.join(kept)}"
    if pattern == COEFFICIENTS:
        return ""
    if isinstance(stage, Prune) and stage.whole_ranking:
        return f"solves for a mask of single coefficients, and pattern {pattern} keeps none; take pattern coefficients"
    if isinstance(stage, Train) and stage.update and stage.update.masks == "exchanged":
        return f"exchanges single coefficients, which pattern {pattern} does not keep; take pattern coefficients"
    if isinstance(stage, Continue) and stage.rate:
        return f"its levels prune a share of the coefficients, and not of pattern {pattern}; take pattern coefficients"
    if isinstance(stage, Continue) and n_of_m(pattern) and stage.sparsity not in ("0", "same"):
        return f"continues a run of sparsity {stage.sparsity}, which is not that of pattern {pattern}"
    return ""
