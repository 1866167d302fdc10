"""Numbers as a reader wants them: accuracies in per cent, differences in points, counts and bytes with a prefix."""

from __future__ import annotations

import math
from collections.abc import Iterable

NOTHING = "–"


def percent(fraction: float) -> str:
    """0.9512 -> '95.12'."""
    return NOTHING if math.isnan(fraction) else f"{100 * fraction:.2f}"


def points(fraction: float) -> str:
    """A signed difference in percentage points: 0.0123 -> '+1.23', with a true minus sign."""
    if math.isnan(fraction):
        return NOTHING
    text = f"{100 * fraction:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def with_interval(mean: str, lower: str, upper: str) -> str:
    """'95.12 [94.80, 95.40]', or only the mean where there is no interval."""
    return mean if NOTHING in (lower, upper) else f"{mean} [{lower}, {upper}]"


def probability(p: float) -> str:
    """0.03125 -> '0.031'; small ones as '<0.001'."""
    if math.isnan(p):
        return NOTHING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def quantity(value: float, unit: str = "") -> str:
    """Three significant digits with a decimal prefix: 1234567 -> '1.23 M'; small whole numbers as they are."""
    if math.isnan(value):
        return NOTHING
    if abs(value) < 999.5 or (value == int(value) and abs(value) < 1000):
        return (f"{int(value)}" if value == int(value) else f"{value:.3g}") + (f" {unit}" if unit else "")
    exponent = min(int(math.log10(abs(value)) / 3), 5)
    scaled = value / 1000**exponent
    if float(f"{abs(scaled):.3g}") >= 1000 and exponent < 5:  # 999999 is 1.00 M, not 1e+03 k
        exponent, scaled = exponent + 1, scaled / 1000
    digits = 2 - min(2, max(0, int(math.log10(abs(float(f"{scaled:.3g}"))))))
    return f"{scaled:.{digits}f} {' kMGTP'[exponent]}{unit}"


def factor(value: float) -> str:
    """How many times less: '×157.8'."""
    return NOTHING if math.isnan(value) else f"×{value:.1f}"


def seconds(value: float) -> str:
    """Wall time: '4.2 s', '3 min 20 s', '2 h 05 min'."""
    if math.isnan(value):
        return NOTHING
    if value < 59.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(value / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def ranges(numbers: Iterable[int]) -> str:
    """{0, 1, 2, 5} -> '0–2, 5'."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}" if len(part) == 1 else f"{part[0]}–{part[-1]}" for part in parts)
