"""Training curves: the points that are drawn."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from mancs_jax.reporting.chart import BOTTOM, HEIGHT, LEFT, TOP, WIDTH, dots_svg
from mancs_jax.reporting.curves import curves_svg, smooth

pytestmark = pytest.mark.quick

SVG = "{http://www.w3.org/2000/svg}"


def test_points_lie_where_their_values_are():
    rows = [{"step": 1, "rank_loss": 4.0}, {"step": 2, "rank_loss": 2.0}, {"step": 4, "rank_loss": 0.0}]
    tree = ElementTree.fromstring(curves_svg(rows))
    (line,) = tree.iter(f"{SVG}polyline")
    points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
    right, floor = WIDTH - 16, HEIGHT - BOTTOM
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
