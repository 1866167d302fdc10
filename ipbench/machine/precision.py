"""TF32 on GPUs: on in mode `fast`, but never where filters are built or scores formed.

TF32 rounds the factors of a product to 10 bits. A filter that is the product of coefficients and filter basis must not
be rounded so: with the standard basis it is the coefficient itself. torch has two interfaces to these switches, and
reading the old one fails where both were used; so they are set by the old one, which keeps both, and read by the new.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def set_tf32(matmul: bool, convolution: bool) -> None:
    """Let products, and convolutions, of float32 on GPUs be formed in TF32, or not."""
    torch.backends.cuda.matmul.allow_tf32 = matmul
    torch.backends.cudnn.allow_tf32 = convolution


def tf32() -> tuple[bool, bool]:
    """Whether products, and whether convolutions, may be formed in TF32."""
    convolution: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    return torch.backends.cuda.matmul.fp32_precision == "tf32", convolution.fp32_precision == "tf32"


@contextmanager
def full_precision() -> Iterator[None]:
    """Within the block, products and convolutions of float32 are in float32, in backward passes too."""
    former = tf32()
    if not any(former):
        yield
        return
    set_tf32(False, False)
    try:
        yield
    finally:
        set_tf32(*former)


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b of two matrices; never in TF32, nor are its derivatives of any order.

    In what `torch.compile` makes of it, torch's own setting holds (`torch.set_float32_matmul_precision`).
    """
    if torch.compiler.is_compiling() or not tf32()[0]:
        return a @ b
    return _Product.apply(a, b)


class _Product(torch.autograd.Function):
    """A matrix product, and in its backward pass two of the same kind."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        """The product in float32."""
        ctx.save_for_backward(a, b)
        with full_precision():
            return a @ b

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Gradients in float32: G B^T and A^T G."""
        a, b = ctx.saved_tensors
        return (
            product(gradient, b.t()) if ctx.needs_input_grad[0] else None,
            product(a.t(), gradient) if ctx.needs_input_grad[1] else None,
        )
