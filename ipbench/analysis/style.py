"""How every figure looks: colours, markers, sizes, the sparsity axis, and bytes that depend on nothing but the data.

SP is blue and IP vermillion everywhere, from the palette of Okabe and Ito (2008), which colour-blind readers can tell
apart; their markers differ too, for print without colour.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from ipbench.store import atomic

COLOUR = {"sp": "#0072B2", "ip": "#D55E00"}
MARKER = {"sp": "o", "ip": "s"}
LABEL = {"sp": "SP", "ip": "IP"}
#: The dense references; dashes as matplotlib takes them.
DENSE_COLOUR = {"sp": "#333333", "ip": "#8A8A8A"}
DENSE_DASHES = {"sp": (0, (4, 2)), "ip": (0, (1, 1.5))}
#: Paired differences belong to neither space.
DIFFERENCE_COLOUR = "#222222"
GREY = "#666666"
#: Of crosses over markers: a mean with lost runs.
CROSS_COLOUR = "#111111"

#: Methods that share a panel, told apart by colour and marker; repeated from the start where there are more.
METHOD_COLOURS = (
    "#0173B2", "#DE8F05", "#029E73", "#D55E00", "#CC78BC", "#8C564B", "#17A2B8", "#6B6B6B", "#B8A400", "#5E3C99",
)  # fmt: skip
#: The same on a dark page.
METHOD_COLOURS_DARK = (
    "#56A8E0", "#F0A83A", "#2CC79B", "#FF8A3D", "#E3A2D4", "#C99488", "#4FCFE2", "#ABABAB", "#DCCB3C", "#B09BDE",
)  # fmt: skip
METHOD_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")

#: Full text width of a two-column journal page and the height that fits on one, in inches, and one panel at most.
PAGE_WIDTH, PAGE_HEIGHT = 7.1, 9.7
PANEL_WIDTH, PANEL_HEIGHT = 2.6, 1.3
COLUMNS = 4
#: Points.
FONT, FONT_SMALL, FONT_TITLE = 7.5, 6.5, 8.5

_RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so figures are the same everywhere
    "font.size": FONT,
    "axes.titlesize": FONT,
    "axes.labelsize": FONT,
    "xtick.labelsize": FONT_SMALL,
    "ytick.labelsize": FONT_SMALL,
    "legend.fontsize": FONT,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#444444",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "xtick.major.pad": 2,
    "ytick.major.pad": 2,
    "axes.titlepad": 3,
    "axes.unicode_minus": True,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.6,
    "svg.hashsalt": "ipbench",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "pdf.compression": 6,
    "figure.dpi": 150,
}
_METADATA = {
    "svg": {"Date": None, "Creator": "ipbench"},
    "pdf": {"CreationDate": None, "Creator": "ipbench", "Producer": None},
    "png": {"Software": None},
}


@contextmanager
def styled() -> Iterator[None]:
    """The settings under which figures are drawn and saved; a user's own matplotlib settings do not reach in."""
    with mpl.rc_context():
        mpl.rcdefaults()
        settings: dict[Any, Any] = {**sns.axes_style("ticks"), **_RC}
        mpl.rcParams.update(settings)
        yield


def save(figure: Figure, path: Path) -> None:
    """Save atomically as the suffix says (svg, pdf, png); equal figures give equal bytes."""
    kind = path.suffix.removeprefix(".")
    for text in figure.findobj(Text):
        if "$" in text.get_text() and r"\mathdefault" not in text.get_text():  # no formula, but what somebody wrote
            text.set_parse_math(False)
    with atomic(path) as temporary:
        figure.savefig(temporary, format=kind, metadata=_METADATA[kind])


def sparsity_position(sparsity: str) -> float:
    """Where a sparsity stands on its axis: -log10(1 - p), so that 0.9, 0.99 and 0.999 are equally far apart."""
    return -math.log10(1 - float(sparsity)) + 0.0  # + 0.0: no minus zero for the dense net


def share_at(place: float) -> float:
    """The share whose place that is."""
    return 1 - 10**-place


#: Ticks for shares that nobody has planned.
_SHARES = ("0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "0.95", "0.98", "0.99", "0.995", "0.999")


def sparsity_axis(
    axes: Axes, sparsities: Sequence[str], width: float, reached: Sequence[float] = (), labelled: bool = True
) -> None:
    """Ticks at the sparsities as written; those whose labels would touch keep their tick but lose the label.

    Args:
        axes: the panel.
        sparsities: as written.
        width: of the panel, in inches.
        reached: places of shares that are results: they are in sight, with ticks at round shares around them.
        labelled: whether the ticks get labels at all.
    """
    places = {text: sparsity_position(text) for text in sparsities}
    shown_places = [*places.values(), *reached]
    low, high = (min(shown_places), max(shown_places)) if shown_places else (0.0, 1.0)
    margin = 0.12 * (high - low) or 0.3
    axes.set_xlim(low - margin, high + margin)
    if reached:
        planned = list(places.values())
        for text in _SHARES:
            place = sparsity_position(text)
            outside = not planned or not min(planned) <= place <= max(planned)
            if outside and low - margin <= place <= high + margin:
                places[text] = place
    inches = width / (high - low + 2 * margin)
    shown: list[str] = []
    # The highest sparsities matter most and crowd least: labels are given out from there.
    for text in sorted(places, key=lambda text: -places[text]):
        room = 0.05 * FONT_SMALL / 6 * (len(text) + (len(shown[-1]) if shown else 0)) / 2 + 0.07
        if not shown or (places[shown[-1]] - places[text]) * inches >= room:
            shown.append(text)
    axes.set_xticks(
        [places[text] for text in reversed(shown)], list(reversed(shown)) if labelled else [""] * len(shown)
    )
    axes.set_xticks([place for text, place in places.items() if text not in shown], minor=True)
    axes.tick_params(axis="x", which="minor", labelbottom=False)
