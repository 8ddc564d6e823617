"""Figures as cells of Markdown tables, on the screen and in the documents."""

from typing import Any


def cell(value: Any) -> str:
    """Returns a number to three digits, all of them where it has more before the point; "" for None."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
