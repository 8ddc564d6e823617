"""Training curves: the points that are drawn."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from mancs_jax.reporting.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, dots_svg, lines
from mancs_jax.reporting.curves import curves_svg, smooth

pytestmark = pytest.mark.quick

SVG = "{http://www.w3.org/2000/svg}"


def test_points_lie_where_their_values_are():
    rows = [{"step": 1, "rank_loss": 4.0}, {"step": 2, "rank_loss": 2.0}, {"step": 4, "rank_loss": 0.0}]
    tree = ElementTree.fromstring(curves_svg(rows))
    (line,) = tree.iter(f"{SVG}polyline")
    points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    expected = [(LEFT + share * (right - LEFT), y) for share, y in ((0.25, TOP), (0.5, (TOP + floor) / 2), (1, floor))]
    np.testing.assert_allclose(points, expected, atol=0.06)


def test_only_panels_with_metrics_are_drawn():
    tree = ElementTree.fromstring(curves_svg([{"step": 1, "accuracy": 0.5, "validation/mAP": 0.1}]))
    titles = [text.text for text in tree.iter(f"{SVG}text") if text.get("font-weight")]
    assert titles == ["share that is right", "validation"]


def test_smoothing_takes_means_of_neighbours():
    points = np.stack([np.arange(200.0), np.arange(200.0) % 2], axis=1)
    smoothed = smooth(points)
    assert len(smoothed) == 50
    np.testing.assert_allclose(smoothed[0], [1.5, 0.5])
    np.testing.assert_allclose(smoothed[:, 1], 0.5)


def test_dots_of_one_value_have_an_axis():
    for value in (0.0, 0.3, 50.0):
        circles = re.findall(r'cx="([\d.]+)"', dots_svg("title", {"row": [value, value]}))
        assert len(circles) == 2 and 0 < float(circles[0]) < 720


def test_a_long_legend_takes_lines_of_its_own():
    names = ["Mancs", "Mancs, multi-query (mean), re-ranked", "colour histogram", "untrained network"]
    panel = lines("CMC", {name: np.ones((2, 2)) for name in names}, 1)
    placed = {
        text: (float(x), float(y))
        for x, y, text in re.findall(r'<text x="(\d+)" y="(\d+)" fill="[^"]+">([^<]+)', panel.svg)
    }
    assert list(placed) == names
    assert [y - placed["Mancs"][1] for _, y in placed.values()] == [0, 0, 16, 16]
    assert panel.height == HEIGHT + 16 and all(x + 6 * len(name) < WIDTH for name, (x, _) in placed.items())
