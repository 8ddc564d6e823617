"""Draws figure 1 of the paper from the network itself: its outputs by name and shape, the losses behind them.

python docs/tools/figure1.py --output=docs/figure1.svg
"""

import argparse
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mancs_jax.config import recipes
from mancs_jax.models.mancs import Outputs, create_model

MARKET_1501_IDS = 751  # identities of its training set
WIDTH, BOX_WIDTH, BOX_HEIGHT, GAP = 720, 220, 46, 20  # pixels
COLUMNS = (10, 250, 490)  # left sides of boxes
STEP = BOX_HEIGHT + GAP
# Colours of light and dark pages; the figure brings its own ground, so that it can be read on either.
STYLE = """text{font:14px sans-serif;fill:#1f2328}.name{font-weight:bold}.paper{fill:#fff}
.box{fill:#f6f8fa;stroke:#656d76}
.mask{fill:#fff1e5;stroke:#bc4c00}.loss{fill:#dafbe1;stroke:#1a7f37}path{fill:none;stroke:#656d76;stroke-width:1.5}
.head{fill:#656d76;stroke:none}@media (prefers-color-scheme:dark){text{fill:#e6edf3}.paper{fill:#0d1117}
.box{fill:#21262d;stroke:#9198a1}.mask{fill:#3d2413;stroke:#db6d28}.loss{fill:#12301b;stroke:#3fb950}
path{stroke:#9198a1}.head{fill:#9198a1}}"""


class Traced(NamedTuple):
    """The shapes of a network, without its numbers."""

    outputs: Outputs  # jax.ShapeDtypeStruct in place of arrays, for one image
    params: Mapping[str, Any]  # likewise


def shapes(config: ConfigDict, num_classes: int) -> Traced:
    """Traces the network without computing anything."""
    model = create_model(config, num_classes)
    image = jnp.zeros((1, *config.data.image_size, 3))
    outputs, variables = jax.eval_shape(lambda key: model.init_with_output(key, image, train=False), jax.random.key(0))
    return Traced(outputs, variables["params"])


def figure_1(config: ConfigDict, num_classes: int) -> str:
    """Draws the training network and its losses (figure 1) as an SVG document.

    Every name is one of `Outputs`, and every shape is that of the traced network; B stands for the images of a batch.

    Args:
      config: of the network, with FABs, and of the losses.
      num_classes: C, identities of the training set.
    """
    outputs, params = shapes(config, num_classes)
    stages = sorted(outputs.maps)
    parts = [_box(0, 0, "image", f"[B, {config.data.image_size[0]}, {config.data.image_size[1]}, 3]")]
    for row, stage in enumerate(stages, start=1):
        attended = stage in outputs.masks
        name = f"conv-{stage}, FAB: maps[{stage}]" if attended else f"conv-{stage}: maps[{stage}]"
        parts += [_box(0, row, name, _shape(outputs.maps[stage])), _down(0, row)]
        if attended:
            squeeze = params[f"fab{stage}"]["squeeze"]["kernel"].shape[-1]
            text = f"{_shape(outputs.masks[stage])}, r = {outputs.masks[stage].shape[-1] // squeeze}"
            parts += [_box(1, row, f"masks[{stage}]", text, "mask"), _across(row)]
    if outputs.masks:
        parts.append(_collected([1 + stages.index(stage) for stage in outputs.masks], len(stages) + 1))
    parts += _heads(outputs, config, len(stages) + 1)
    height = STEP * (len(stages) + 5)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
        f'<style>{STYLE}</style><rect class="paper" width="100%" height="100%"/>{"".join(parts)}</svg>\n'
    )


def _heads(outputs: Outputs, config: ConfigDict, row: int) -> list[str]:
    """The three branches below the last map, each with its loss, and their sum."""
    loss = config.loss
    own_layer = "pooled, FC: f_rank" if config.model.rank_head == "fc" else "pooled: f_rank"
    parts = [_box(0, row, own_layer, _shape(outputs.f_rank)), _down(0, row)]
    parts += [_box(0, row + 2, f"triplet loss, {loss.sampling}", "equations 3 to 6", "loss"), _down(0, row + 2, 2)]
    parts += [_box(1, row, "pooled, FC: f_cls", _shape(outputs.f_cls)), _corner(row)]
    parts += [_box(1, row + 1, "cls_logits", _shape(outputs.cls_logits)), _down(1, row + 1)]
    parts += [_box(1, row + 2, f"focal loss, {loss.probability}", "equations 7 and 8", "loss"), _down(1, row + 2)]
    weights = [f"{loss.rank_weight:g} triplet", f"{loss.cls_weight:g} focal"]
    if outputs.f_att is not None and outputs.att_logits is not None:
        parts.append(_box(2, row, "pooled, joined: f_att", _shape(outputs.f_att)))
        parts += [_box(2, row + 1, "att_logits", _shape(outputs.att_logits)), _down(2, row + 1)]
        parts += [
            _box(2, row + 2, f"attention loss, {loss.attention}", "equations 9 and 10", "loss"),
            _down(2, row + 2),
        ]
        weights.append(f"{loss.att_weight:g} attention")
    total = _box(0, row + 3, f"loss = {' + '.join(weights)}", "equation 11", "loss", WIDTH - 2 * COLUMNS[0])
    return [*parts, *(_down(column, row + 3) for column in range(len(weights))), total]


def _shape(of: jax.ShapeDtypeStruct | jax.Array) -> str:
    return f"[{', '.join(['B', *map(str, of.shape[1:])])}]"


def _top(row: int) -> int:
    return GAP // 2 + STEP * row


def _box(column: int, row: int, name: str, text: str, kind: str = "box", width: int = BOX_WIDTH) -> str:
    x, y = COLUMNS[column], _top(row)
    middle = x + width / 2
    return (
        f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{BOX_HEIGHT}" rx="5"/>'
        f'<text class="name" x="{middle:g}" y="{y + 19}" text-anchor="middle">{escape(name)}</text>'
        f'<text x="{middle:g}" y="{y + 37}" text-anchor="middle">{escape(text)}</text>'
    )


def _arrow(points: Sequence[tuple[float, float]], head: tuple[int, int]) -> str:
    """A line through points with a head at its end; `head` is its direction, a unit step."""
    (x, y), (across, down) = points[-1], head
    line = "L".join(f"{a:g} {b:g}" for a, b in points)
    back = (x - 7 * across, y - 7 * down)
    corners = [(back[0] + 4 * sign * down, back[1] + 4 * sign * across) for sign in (1, -1)]
    tip = "L".join(f"{a:g} {b:g}" for a, b in [(x, y), *corners])
    return f'<path d="M{line}"/><path class="head" d="M{tip}Z"/>'


def _down(column: int, row: int, rows: int = 1) -> str:
    """From the box above, by default the one just above, to the box of a row."""
    x = COLUMNS[column] + BOX_WIDTH / 2
    return _arrow([(x, _top(row - rows) + BOX_HEIGHT), (x, _top(row))], (0, 1))


def _across(row: int) -> str:
    """From a map to its mask."""
    y = _top(row) + BOX_HEIGHT / 2
    return _arrow([(COLUMNS[0] + BOX_WIDTH, y), (COLUMNS[1], y)], (1, 0))


def _corner(row: int) -> str:
    """From the last map to the middle branch."""
    y, x = _top(row - 1) + BOX_HEIGHT / 2, COLUMNS[1] + BOX_WIDTH / 2
    return _arrow([(COLUMNS[0] + BOX_WIDTH, y), (x, y), (x, _top(row))], (0, 1))


def _collected(rows: Sequence[int], end: int) -> str:
    """From all masks to the right branch."""
    left, x = COLUMNS[1] + BOX_WIDTH, COLUMNS[2] + BOX_WIDTH / 2
    lines = "".join(f'<path d="M{left} {_top(row) + BOX_HEIGHT / 2:g}H{x:g}"/>' for row in rows)
    return lines + _arrow([(x, _top(rows[0]) + BOX_HEIGHT / 2), (x, _top(end))], (0, 1))


def main() -> None:
    """Draws and writes the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("figure1.svg"), help="file to write")
    output = parser.parse_args().output
    output.write_text(figure_1(recipes.market(), MARKET_1501_IDS))
    print(output)


if __name__ == "__main__":
    main()
