"""Draws what is counted as SVG, which needs no script and is sharp on any screen and on paper.

Pure. Only shapes are drawn, stretched to the width that there is; words and numbers stand beside them as text, so they
can be read at any size, and aloud.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_ALL: Final = 100
"""How wide a drawing is, in its own units; it is shown as wide as the page has room for."""
_BAR: Final = 10
_BEYOND: Final = 3
"""How far a mark stands out above and below its bar."""
_THINNEST: Final = 0.4
"""What is not nothing can be seen."""


def width(count: float, largest: float) -> float:
    """Of a bar, where the longest is as wide as the drawing."""
    return max(_THINNEST, min(1.0, count / largest) * _ALL) if count and largest else 0.0


def bar(wide: float, marks: Iterable[tuple[float, str]] = ()) -> str:
    """One bar, with marks where targets lie; each of these has the class that its verdict gives it."""
    drawn = [f'<rect width="{wide:.2f}" height="{_BAR}"/>']
    drawn += [
        f'<path class="{verdict}" d="M{at:.2f} {-_BEYOND}V{_BAR + _BEYOND}" vector-effect="non-scaling-stroke"/>'
        for at, verdict in marks
    ]
    return _svg("bar", _BAR, drawn)


def slope(above: float, below: float) -> str:
    """What is lost between two bars: the ground that narrows from the one to the other."""
    return _svg("slope", _ALL, [f'<path d="M0 0H{above:.2f}L{below:.2f} {_ALL}H0Z"/>'])


def _svg(kind: str, height: int, drawn: Iterable[str]) -> str:
    return (
        f'<svg class="{kind}" viewBox="0 0 {_ALL} {height}" preserveAspectRatio="none" aria-hidden="true"'
        f' focusable="false">{"".join(drawn)}</svg>'
    )
