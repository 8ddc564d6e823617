"""A matrix of shares as an SVG drawing: a cell a pair, darker where the share is lower."""

from collections.abc import Sequence
from html import escape

from mancs_jax.reporting.chart import GRID, Panel, document

CELL, LABEL, TOP = (84, 40), 96, 52  # pixels: (width, height) of a cell, the column of row names, the head
DARK = (207, 34, 46)  # colour of a share of 0; white is 1


def matrix_svg(
    rows: Sequence[str],
    columns: Sequence[str],
    shares: Sequence[Sequence[float | None]],
    counts: Sequence[Sequence[int]],
    row_title: str,
    column_title: str,
) -> str:
    """An SVG document: each share in per cent, the count below it, and "-" where there is none.

    Args:
      rows: names of A rows.
      columns: names of C columns.
      shares: A x C, from 0 to 1 or None.
      counts: A x C.
      row_title: what the rows are.
      column_title: what the columns are.
    """
    width, height = LABEL + CELL[0] * len(columns) + 8, TOP + CELL[1] * len(rows) + 8
    parts = [
        f'<text x="8" y="{TOP - 10}" fill="#57606a">{escape(row_title)}</text>',
        f'<text x="{LABEL}" y="18" fill="#57606a">{escape(column_title)}</text>',
    ]
    for c, name in enumerate(columns):
        parts.append(_text(LABEL + CELL[0] * (c + 0.5), TOP - 10, name, bold=True))
    for a, name in enumerate(rows):
        y = TOP + CELL[1] * a
        parts.append(_text(LABEL / 2, y + CELL[1] / 2 + 4, name, bold=True))
        for c, (share, count) in enumerate(zip(shares[a], counts[a], strict=True)):
            x = LABEL + CELL[0] * c
            red, green, blue = (
                round(255 - (255 - of) * 0.85 * (1 - share)) if share is not None else 246 for of in DARK
            )
            parts.append(
                f'<rect x="{x}" y="{y}" width="{CELL[0]}" height="{CELL[1]}" fill="rgb({red},{green},{blue})" '
                f'stroke="{GRID}"/>'
            )
            middle = x + CELL[0] / 2
            if share is None:
                parts.append(_text(middle, y + CELL[1] / 2 + 4, "-"))
            else:
                parts.append(_text(middle, y + 17, f"{100 * share:.1f} %"))
                parts.append(_text(middle, y + 33, f"of {count:,}", small=True))
    return document([Panel("".join(parts), height)], width)


def _text(x: float, y: float, text: str, *, bold: bool = False, small: bool = False) -> str:
    style = ' font-weight="bold"' if bold else ' font-size="10" fill="#57606a"' if small else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle"{style}>{escape(text)}</text>'
