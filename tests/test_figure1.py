"""Figure 1: its names and shapes are those of the network that computes."""

import re
import xml.etree.ElementTree as ElementTree
from functools import partial
from pathlib import Path

import figure1
import jax
import numpy as np
import pytest
from figure1 import figure_1

from mancs_jax.config import defaults, recipes
from mancs_jax.models.mancs import create_model, init_variables

DOCS = Path(__file__).parents[1] / "docs"
SVG = "{http://www.w3.org/2000/svg}"
NUM_CLASSES = 7


def texts(svg: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("fab_stages", [(2, 3, 4), (3,), ()])
def test_each_output_stands_there_with_the_shape_that_is_computed(fab_stages):
    config = defaults.get_config()
    config.remat = ()
    config.data.image_size = (64, 32)
    config.model.arch, config.model.width, config.model.fab_stages = "resnet10", 8, fab_stages
    config.model.rank_dim, config.model.cls_dim = 24, 40
    shapes = jax.eval_shape(partial(init_variables, config, NUM_CLASSES))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    apply = jax.jit(partial(create_model(config, NUM_CLASSES).apply, train=False))
    outputs = apply(variables, np.zeros((2, 64, 32, 3), np.float32))
    named = {f"maps[{stage}]": of for stage, of in outputs.maps.items()}
    named |= {f"masks[{stage}]": of for stage, of in outputs.masks.items()}
    named |= {name: of for name, of in outputs._asdict().items() if isinstance(of, jax.Array)}
    drawn = texts(figure_1(config, NUM_CLASSES))
    for name, of in named.items():
        (place,) = [i for i, text in enumerate(drawn) if text.split()[-1] == name]
        shape = re.findall(r"\d+", drawn[place + 1].partition("]")[0])
        assert tuple(map(int, shape)) == of.shape[1:], name
    assert sum("masks[" in text for text in drawn) == len(fab_stages)
    assert ("f_att" in " ".join(drawn)) == ("attention loss" in " ".join(drawn)) == bool(fab_stages)


def test_losses_and_weights_are_those_of_the_recipe():
    of_paper, of_release = (texts(figure_1(recipes.market(variant), NUM_CLASSES)) for variant in ("", "authors"))
    assert "loss = 1 triplet + 1 focal + 0.2 attention" in of_paper
    assert "attention loss, sigmoid" in of_paper and "attention loss, softmax" in of_release
    assert "pooled, FC: f_rank" in of_paper and "pooled: f_rank" in of_release


def test_boxes_do_not_overlap_and_are_inside():
    root = ElementTree.fromstring(figure_1(recipes.market(), NUM_CLASSES))
    rects = [box for box in root.iter(f"{SVG}rect") if box.get("x")]
    boxes = [[float(box.get(name)) for name in ("x", "y", "width", "height")] for box in rects]
    left, top, width, height = np.array(boxes).T
    assert left.min() >= 0 and (left + width).max() <= float(root.get("width"))
    assert top.min() >= 0 and (top + height).max() <= float(root.get("height"))
    for i in range(len(boxes)):
        for j in range(i):
            apart = abs(left[i] - left[j]) >= min(width[i], width[j]) or abs(top[i] - top[j]) >= height[i]
            assert apart, (boxes[i], boxes[j])


def test_the_command_draws_the_picture_in_the_documents(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["figure1", f"--output={tmp_path / 'figure1.svg'}"])
    figure1.main()
    assert capsys.readouterr().out == f"{tmp_path / 'figure1.svg'}\n"
    assert (tmp_path / "figure1.svg").read_text() == (DOCS / "figure1.svg").read_text()
