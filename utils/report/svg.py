"""Drawings as SVG inside the report: they take the page's fonts, and its colours for the placeholders here."""

import io
import re
from html import escape
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

COLOURS = [f"#c0c0c{i}" for i in range(8)]
REFERENCE, INK = "#c0c0d0", "#c0c0d1"
CSS = {INK: "currentColor", REFERENCE: "var(--reference)"} | {c: f"var(--c{i})" for i, c in enumerate(COLOURS)}
"""Placeholder -> colour in the page; report.html defines the variables."""
INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
STYLE: Any = {"svg.fonttype": "none", "font.size": 11, "grid.alpha": 0.15, **dict.fromkeys(INKED, INK)}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False}
_drawn = count()


def as_svg(drawing: "Drawing", alt: str) -> str:
    """An `<svg>` element that refers to no other file. Artists with a gid "run r<i>" get these two classes."""
    from matplotlib import rc_context

    buffer, no_metadata = io.StringIO(), dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.hashsalt": f"figure {next(_drawn)}"}):
        drawing.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    ((size, svg),) = re.findall(r'<svg.*?(viewBox="[^"]*").*?</defs>(.*)', buffer.getvalue(), re.S)  # less <style>
    svg = re.sub(r'id="(run r\d+)"', r'class="\1"', svg)
    unwanted = r' id="[a-zA-Z.0-9]+_\d+"| transform="rotate\(-0 [^"]*"| font-family: [^;"]*;|\s*\n *'  # ids: not unique
    svg = re.sub(unwanted, "", svg)
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), svg)  # coordinates, not numbers shown
    svg = re.sub("|".join(CSS), lambda colour: CSS[colour[0]], svg)
    return f'<svg {size} role="img" aria-label="{escape(alt)}">{svg.replace("xlink:href", "href")}'
