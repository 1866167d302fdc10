"""Which channels reach which: a forward pass as a list of steps, from the input to what the net returns.

`Flow` follows labels as `Trace` does, by the rules of `flow_rules`. Nothing is made one here: where `Trace` joins two
channels, for they can only be removed together, the channels of a result are new nodes, and it is noted of which older
ones they are formed. So every step leads from older nodes to newer ones, and one sweep through all of them tells what
the input reaches, one sweep back what reaches the outputs.

Label 0 is a constant: biases, norms and all that the net holds beside its prunable weights. No path begins there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ipbench.sparse.trace import IMAGE, Call, Held, Labels, Rule, Trace, spoken

Flags = NDArray[np.bool_]
#: By layer, which pairs of an index along the first axis of its weight and one along the second are connected.
Kernels = Mapping[str, Flags]


@dataclass(frozen=True)
class Formed:
    """Newer nodes that are reached from older ones without any weight.

    Attributes:
        sources: of shape (number,).
        targets: of the same shape.
    """

    sources: Labels
    targets: Labels

    def forward(self, alive: Flags, kernels: Kernels) -> None:
        """Mark what is reached from marked nodes."""
        alive[self.targets[alive[self.sources]]] = True

    def backward(self, alive: Flags, kernels: Kernels) -> None:
        """Mark what reaches marked nodes."""
        alive[self.sources[alive[self.targets]]] = True


@dataclass(frozen=True)
class Product:
    """A convolution or matrix product with (a part of) a weight of the net.

    Attributes:
        tensor: name of the weight, as in the plain net.
        rows, columns: which indices of its first two axes take part; their entries are the kernels of the product.
        turned: whether inputs lie along the rows (transposed convolutions), and not along the columns.
        inputs: nodes of shape (variants, groups, inputs of a group): variants are values that the same weight is used
            with in one product, such as positions.
        outputs: likewise, (variants, groups, outputs of a group).
    """

    tensor: str
    rows: Labels
    columns: Labels
    turned: bool
    inputs: Labels
    outputs: Labels

    def kernels(self, kernels: Kernels) -> Flags:
        """Which inputs are connected with which outputs, of shape (groups, outputs, inputs)."""
        groups = self.inputs.shape[1]
        known = kernels.get(self.tensor)
        if known is None:  # no masks act on it
            shape = (groups, self.outputs.shape[2], self.inputs.shape[2])
            return np.broadcast_to(np.True_, shape)
        part = _part(known, self.rows, self.columns)
        part = part.reshape(groups, -1, part.shape[1])
        return part.swapaxes(1, 2) if self.turned else part

    def forward(self, alive: Flags, kernels: Kernels) -> None:
        """Mark outputs that a marked input reaches."""
        connected = self.kernels(kernels)
        for given, made in zip(self.inputs, self.outputs, strict=True):
            alive[made[_reached(connected, alive[given])]] = True

    def backward(self, alive: Flags, kernels: Kernels) -> None:
        """Mark inputs that reach a marked output."""
        connected = self.kernels(kernels).swapaxes(1, 2)
        for given, made in zip(self.inputs, self.outputs, strict=True):
            alive[given[_reached(connected, alive[made])]] = True

    def mark_live(self, found: Flags, forward: Flags, backward: Flags) -> None:
        """Mark in `found`, one flag per kernel of the weight, those from a reached input to an output that reaches."""
        for given, made in zip(self.inputs, self.outputs, strict=True):
            if len(given) == 1:
                begin, end = forward[given[0]], backward[made[0]]
                first, second = (begin, end) if self.turned else (end, begin)
                found |= _at(self.rows, first, len(found))[:, None] & _at(self.columns, second, found.shape[1])
            else:
                between = backward[made][:, :, None] & forward[given][:, None, :]
                between = between.swapaxes(1, 2) if self.turned else between
                found[np.ix_(self.rows, self.columns)] |= between.reshape(len(self.rows), len(self.columns))


def _at(indices: Labels, flags: Flags, size: int) -> Flags:
    """Flags of some indices along an axis of a size; False elsewhere."""
    result = np.zeros(size, dtype=bool)
    result[indices] = flags
    return result


def _reached(connected: Flags, alive: Flags) -> Flags:
    """By group, which rows (groups, rows, columns) have an entry in a column that is marked (groups, columns)."""
    if connected.strides == (0, 0, 0):
        return np.broadcast_to(np.asarray(alive.any(1))[:, None], connected.shape[:2])
    if len(connected) > 1:
        return np.asarray((connected & alive[:, None, :]).any(axis=2))
    row = connected[0]
    along = row.strides[0] >= row.strides[1]  # as it lies in memory
    return np.atleast_2d(row @ alive[0] if along else row.T[alive[0]].any(0))


def _part(flags: Flags, rows: Labels, columns: Labels) -> Flags:
    """Some rows and columns; no copy where it is all of them."""
    if all(
        len(chosen) == size and np.array_equal(chosen, np.arange(size))
        for chosen, size in zip((rows, columns), flags.shape, strict=True)
    ):
        return flags
    return flags[np.ix_(rows, columns)]


class Flow(Trace):
    """Follows which channels reach which in the block `watching`.

    Attributes:
        steps: in the order of the pass.
        whole: by name of a prunable weight that is not only used as a factor of a product: its node. It reaches what
            is computed of it; which of its kernels do cannot be told.
        mixed: operators without a rule: everything they are given reaches everything that they make.
    """

    def __init__(
        self, net: nn.Module, prunable: Collection[str], rules: Callable[[Call], Rule | None], unknown: Rule
    ) -> None:
        """Prepare to watch a net.

        Args:
            net: whose parameters and buffers are told apart.
            prunable: names of the weights that masks act on; all other tensors of the net are constants.
            rules: gives the rule of an operator, if it has one.
            unknown: the rule of all other operators.
        """
        self.steps: list[Formed | Product] = []
        self.whole: dict[str, int] = {}
        self.mixed: dict[str, None] = {}
        self._prunable = frozenset(prunable)
        super().__init__(net, rules, unknown)

    @property
    def image(self) -> int:
        """The node of all inputs."""
        return self.nodes.frozen(IMAGE)

    def labels(self, tensor: Tensor) -> Labels:
        """The labels of a tensor; a weight that is read so has one node for all of its entries."""
        held = self.holders(tensor)
        if not held:
            return super().labels(tensor)
        nodes = [self._node_of(one) for one in held if one.name in self._prunable]
        return np.full((1,) * tensor.dim(), self.formed(np.array([nodes]))[0] if nodes else 0, np.int64)

    def write(self, tensor: Tensor, labels: Labels) -> None:
        """Set the labels of a tensor.

        Raises:
            ValueError: it is one of the net's own, and what is written is no constant: another pass would read it.
        """
        if self.holders(tensor):
            if labels.any():
                raise ValueError(f"{self.where} writes into a tensor of the net")
            return
        super().write(tensor, labels)

    def formed(self, rows: Labels) -> Labels:
        """What is formed of several channels each.

        Args:
            rows: of shape (number, channels); 0 is none.

        Returns:
            A node for each row, equal ones for equal rows: that of its channel where there is only one.
        """
        unlike, which = distinct(rows)
        result = unlike.max(1, initial=0)
        several = ((unlike != result[:, None]) & (unlike != 0)).any(1)
        if several.any():
            sources, made = unlike[several], self.nodes.new(int(several.sum()))
            targets = np.broadcast_to(made[:, None], sources.shape)
            self.steps.append(Formed(sources[sources != 0], targets[sources != 0]))
            result[several] = made
        return result[which]

    def merged(self, labels: Labels, axes: tuple[int, ...]) -> Labels:
        """Labels of what is formed of all that lies along some axes: of size 1 along them."""
        axes = tuple(axis % labels.ndim for axis in axes)
        if all(labels.shape[axis] == 1 for axis in axes):
            return labels
        others = [axis for axis in range(labels.ndim) if axis not in axes]
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(labels.shape))
        rows = np.transpose(labels, (*others, *axes)).reshape(int(np.prod([labels.shape[a] for a in others])), -1)
        return self.formed(rows).reshape(shape)

    def together(self, parts: list[Labels]) -> Labels:
        """Labels of what is formed entry by entry of several tensors, broadcast."""
        found, *others = parts
        for other in others:
            one, two = np.broadcast_arrays(found, other)
            found = self.formed(np.stack([one.ravel(), two.ravel()], 1)).reshape(one.shape)
        return found

    def all_of(self, tensors: list[Tensor]) -> int:
        """The node of what is formed of everything in some tensors; 0 of constants."""
        return self._as_one([self.labels(tensor) for tensor in tensors])

    def mix(self, call: Call) -> None:
        """Note an operator without a rule."""
        self.mixed[spoken(call.name)] = None

    # What differs in `Trace`.

    def _by_element(self, held: Held, tensor: Tensor) -> None:
        """Entries of the net's own tensors are not followed one by one."""

    def _node_of(self, held: Held) -> int:
        if held.name not in self.whole:
            self.whole[held.name] = int(self.nodes.new(1)[0])
        return self.whole[held.name]

    def _note_view(self, call: Call, leaf: Tensor) -> None:
        """Views need no notes here."""

    def _note_split(self, labels: Labels, *, view: bool) -> None:
        """Nor do labels along several axes."""

    def _as_one(self, labels: list[Labels]) -> int:
        return int(self.formed(_unlike(labels)[None])[0])


def _unlike(labels: list[Labels]) -> Labels:
    """All labels in some arrays, each once."""
    return np.unique(np.concatenate([np.unique(part) for part in labels] or [np.zeros(1, np.int64)]))


def distinct(rows: Labels) -> tuple[Labels, Labels]:
    """The rows that differ, and for each row which of these it is."""
    # By a number per row, which is many times faster than by rows; that no two unlike ones share it is checked.
    factors = np.random.default_rng(0).integers(1, 2**62, rows.shape[1], np.int64) * 2 + 1
    _, first, which = np.unique(rows @ factors, return_index=True, return_inverse=True)
    if np.array_equal(rows[first][which], rows):
        return rows[first], which
    found, which = np.unique(rows, axis=0, return_inverse=True)
    return found, which.reshape(-1)
