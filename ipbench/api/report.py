"""What was pruned, and what could not be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

#: Names of one kind that are printed; `Report` has all.
_PRINTED = 8


class Kept(NamedTuple):
    """Coefficients of a layer: how many there are, and how many are kept."""

    size: int
    kept: int


@dataclass(frozen=True)
class Report:
    """What became of a net.

    Attributes:
        method: its name.
        space: "sp" or "ip".
        pattern: what is kept or removed as one.
        budget: what sparsities are shares of.
        off: what a masked coefficient is.
        asked: the sparsity that was asked for; None where an option of the method says how much goes.
        reached: the one that the net has, in the unit of the budget.
        layers: coefficients by layer, in the order of the net.
        basis_entries: of trained filter bases, paid for inside a budget of parameters.
        parameters: of the plain dense net.
        left_out: prunable layers that are not pruned, each with the reason.
        not_prunable: parameters of two or more dimensions that are never pruned (embeddings, tokens, ...), by size.
        whole: channels that cannot be removed, by their group, each with the reason; of patterns of channels.
        dense_layers: layers that an N:M pattern does not fit.
        notes: what the method says of itself.
    """

    method: str
    space: str
    pattern: str
    budget: str
    off: str
    asked: float | None
    reached: float
    layers: Mapping[str, Kept]
    basis_entries: int
    parameters: int
    left_out: Mapping[str, str]
    not_prunable: Mapping[str, int]
    whole: Mapping[str, str]
    dense_layers: tuple[str, ...]
    notes: Mapping[str, object]

    @property
    def kept(self) -> int:
        """Coefficients that are kept, in all layers."""
        return sum(layer.kept for layer in self.layers.values())

    @property
    def prunable(self) -> int:
        """Coefficients in all."""
        return sum(layer.size for layer in self.layers.values())

    def __str__(self) -> str:
        asked = "" if self.asked is None else f", asked {self.asked:.4g}"
        bases = f", and {self.basis_entries:,} entries of filter bases" if self.basis_entries else ""
        lines = [
            f"{self.method} in {self.space}: pattern {self.pattern}, off {self.off};"
            f" sparsity of {self.budget} reached {self.reached:.4g}{asked}",
            f"{self.kept:,} of {self.prunable:,} coefficients are kept in {len(self.layers)} layers{bases};"
            f" the net has {self.parameters:,} parameters",
        ]
        lines += _listed("not pruned", [f"{name} ({reason})" for name, reason in self.left_out.items()])
        lines += _listed("never pruned", [f"{name} ({size:,})" for name, size in self.not_prunable.items()])
        lines += _listed("channels that stay", [f"{name}: {reason}" for name, reason in self.whole.items()])
        lines += _listed(f"not in groups of {self.pattern}, left dense", list(self.dense_layers))
        emptied = [name for name, layer in self.layers.items() if not layer.kept]
        lines += _listed("nothing is left of", emptied)
        return "\n".join(lines)


def _listed(title: str, entries: list[str]) -> list[str]:
    """A heading and its entries, a line each; nothing without entries."""
    if not entries:
        return []
    more = [f"  ... and {len(entries) - _PRINTED} more"] if len(entries) > _PRINTED else []
    return [f"{title}:", *(f"  {entry}" for entry in entries[:_PRINTED]), *more]
