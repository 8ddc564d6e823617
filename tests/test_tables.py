"""The tables of scores in the documents are those of the results in docs/results/."""

import importlib
import json
import re
from pathlib import Path

import pytest
import score_tables as tables

pytestmark = pytest.mark.quick

REPOSITORY = Path(__file__).parents[1]
TESTS = Path(__file__).parent


def test_the_documents_have_every_table_as_it_is_written():
    shown = []
    for page in tables.pages():
        assert tables.with_tables(page.read_text()) == page.read_text(), f"{page}: run `make docs`"
        shown += [name for _, name, _ in tables.MARKED.findall(page.read_text())]
    assert sorted(shown) == sorted(tables.TABLES)


def test_a_changed_number_is_found():
    page = (REPOSITORY / "README.md").read_text()
    changed = re.sub(r"\| [\d.]+ (?=\[[\d., ]+\] \| `make demo` \|)", "| 12.3 ", page)
    assert changed != page and tables.with_tables(changed) == page


def test_cells_are_the_numbers_of_the_files():
    """By another way than the writer's: the text of each number is looked for in the row of its name."""
    result = json.loads((REPOSITORY / "docs/results/walkers/results.json").read_text())
    (row,) = re.findall(r"^.*`make demo` \|$", (REPOSITORY / "README.md").read_text(), re.M)
    cells = [cell.strip() for cell in row.split("|")]
    of = result["Mancs"]
    assert [cell.partition(" ")[0] for cell in cells[3:6]] == [
        f"{100 * value:.1f}" for value in (of["mAP"], of["mAP_plain"], of["cmc"][0])
    ]
    assert (of["recipe"], of["seed"], of["split"], of["step"]) == ("walkers", 0, "official", 360)


@pytest.mark.parametrize("text", ["<!-- table: nothing -->\n<!-- end of table -->", "<!-- table: results -->\n"])
def test_a_marker_without_table_or_end_is_refused(text):
    with pytest.raises(ValueError, match="table"):
        tables.with_tables(text)


def test_results_of_the_demo_name_no_place_of_the_machine(tmp_path):
    (tmp_path / "results").mkdir()
    for suffix in tables.DEMO.values():
        result = {"cmc": [0.5], "config": {"data": {"root": "/home/somebody/data"}}} if not suffix else {"cmc": [0.1]}
        (tmp_path / "results" / f"single_query{suffix}.json").write_text(json.dumps(result))
    taken = tables.take_walkers(tmp_path)
    assert list(taken) == ["Mancs", "untrained network", "colour histogram"]
    assert "somebody" not in json.dumps(taken) and taken["Mancs"]["cmc"] == [0.5]


def test_the_equations_have_code_and_tests():
    page = (REPOSITORY / "docs" / "paper.md").read_text()
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.count("|") == 5 and ".py::" in line]
    assert sorted(int(number) for row in rows for number in row[0].split(",")) == list(range(1, 12))
    for _, _, code, test in rows:
        module, _, name = code.strip(" `").rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))
        file, name = test.strip().split("::")
        assert re.search(rf"^def {name}\(", (TESTS / file).read_text(), re.M), test
