"""What all figures share: an empty figure, the file that it becomes, and text that fits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from timm_dpa.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ['DPI', 'check_figure_path', 'new_canvas', 'new_figure', 'plain_text', 'save_figure', 'shortened']

#: pixels per inch of PNG files, and of the images inside the others
DPI = 150
_SUFFIXES = ('.png', '.svg', '.pdf')


def check_figure_path(out: Path) -> Path:
    """`out` as a path; ValueError unless its suffix is that of a figure."""
    out = Path(out)
    if out.suffix.lower() not in _SUFFIXES:
        raise ValueError(f'out={out}: a figure is written as {", ".join(_SUFFIXES)}; give it such a name')
    return out


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """An empty figure, sizes in inches. It is not pyplot's, whose state belongs to the whole process."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'timm-dpa[train]'") from error
    return Figure((width, height), facecolor='white', **options)


def new_canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure and an area as large, to draw on in inches from its upper left corner."""
    figure = new_figure(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return figure, axes


def save_figure(figure: Figure, out: Path) -> Path:
    """Write a figure as its suffix says, whole or not at all; returns `out`."""
    kind = out.suffix.lower().removeprefix('.')
    dated = {'svg': 'Date', 'pdf': 'CreationDate'}.get(kind)
    with atomic_file(out) as temporary:
        figure.savefig(temporary, format=kind, dpi=DPI, metadata={dated: None} if dated else None)
    return out


def plain_text(text: str) -> str:
    """`text` with a question mark for what cannot be drawn, such as control characters and undecodable bytes."""
    return ''.join(character if character.isprintable() else '?' for character in text)


def shortened(text: str, length: int) -> str:
    """`plain_text` of at most `length` characters: what is too long loses its middle."""
    text = plain_text(text)
    tail = (length - 1) // 2
    return text if len(text) <= length else f'{text[: length - 1 - tail]}…{text[-tail:]}'
