"""Masks as few bytes: gaps between what is kept, Rice coded, or a bitmap where that is shorter.

The gap before each kept entry is split by a power of two: quotients are written in unary (so many ones and a zero), one
stream; remainders with a fixed number of bits, another one. For gaps of a random mask this comes within some three per
cent of the entropy (Rice and Plaunt, IEEE Transactions on Communications 19, 1971).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: In place of the number of remainder bits: a bitmap; or everything is kept, and there are no bytes.
BITMAP, WHOLE = 255, 254
_MOST_BITS = 40


def encode(mask: NDArray[np.bool_], whole: bool = False) -> tuple[int, bytes]:
    """Code a flat mask.

    Args:
        mask: True where an entry is kept.
        whole: whether `WHOLE` may be used, which format 1 has not.

    Returns:
        The number of remainder bits, or `BITMAP` or `WHOLE`, and the bytes. `decode` needs the number of kept entries
        besides.
    """
    if whole and mask.all():
        return WHOLE, b""
    places = np.flatnonzero(mask)
    gaps = np.diff(places, prepend=-1) - 1
    sizes = [_bytes(len(gaps) + int((gaps >> k).sum())) + _bytes(k * len(gaps)) for k in range(_MOST_BITS)]
    bits = int(np.argmin(sizes))
    if _bytes(len(mask)) < sizes[bits]:
        return BITMAP, np.packbits(mask).tobytes()
    quotients = gaps >> bits
    unary = np.ones(len(gaps) + int(quotients.sum()), dtype=np.uint8)
    unary[np.cumsum(quotients + 1) - 1] = 0
    remainders = (gaps[:, None] >> np.arange(bits - 1, -1, -1)) & 1
    return bits, np.packbits(unary).tobytes() + np.packbits(remainders.astype(np.uint8)).tobytes()


def decode(data: bytes, bits: int, size: int, kept: int) -> NDArray[np.bool_]:
    """The flat mask of `size` entries with `kept` True ones that `encode` wrote.

    Raises:
        ValueError: the bytes are not those of such a mask.
    """
    if bits == WHOLE:
        if data:
            raise ValueError(f"the mask of a layer of which all is kept has no bytes, not {len(data)}")
        mask = np.ones(size, dtype=bool)
    elif bits == BITMAP:
        if len(data) != _bytes(size):
            raise ValueError(f"a bitmap of {size} entries has {_bytes(size)} bytes, not {len(data)}")
        mask = np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=size).astype(bool)
    else:
        low = _bytes(bits * kept)
        if not valid(bits, size, kept, len(data)):
            raise ValueError("not a Rice code")
        unary = np.unpackbits(np.frombuffer(data[: len(data) - low], dtype=np.uint8))
        ends = np.flatnonzero(unary == 0)[:kept]
        if len(ends) < kept or len(data) - low != _bytes(int(ends[-1]) + 1 if kept else 0):
            raise ValueError(f"not the code of {kept} entries")
        quotients = np.diff(ends, prepend=-1) - 1
        if kept and int(quotients.max()) << bits >= size:  # before anything can overflow
            raise ValueError(f"an entry lies outside the {size} of the layer")
        rest = np.unpackbits(np.frombuffer(data[len(data) - low :], dtype=np.uint8), count=bits * kept)
        remainders = rest.reshape(kept, bits).astype(np.int64) @ (1 << np.arange(bits - 1, -1, -1, dtype=np.int64))
        places = np.cumsum((quotients << bits) + remainders + 1) - 1
        if kept and places[-1] >= size:
            raise ValueError(f"an entry lies outside the {size} of the layer")
        mask = np.zeros(size, dtype=bool)
        mask[places] = True
    if int(mask.sum()) != kept:
        raise ValueError(f"{int(mask.sum())} entries, not {kept}")
    return mask


def valid(bits: int, size: int, kept: int, length: int, whole: bool = False) -> bool:
    """Whether a code of `length` bytes may be that of a mask of `size` entries with `kept` True ones."""
    if not 0 <= kept <= size:
        return False
    if bits == WHOLE:
        return whole and kept == size and not length
    if bits == BITMAP:
        return length == _bytes(size)
    # A bit at least for every quotient; at most those of all the gaps together.
    low = _bytes(bits * kept)
    return 0 <= bits < _MOST_BITS and low + _bytes(kept) <= length <= low + _bytes(kept + size)


def _bytes(bits: int) -> int:
    return (bits + 7) // 8
