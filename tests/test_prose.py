"""Plain English, as far as it can be counted: no sentence of the documents is longer than CONTRIBUTING.md allows."""

import re

import documents
import pytest

WORDS = 25
PAGES = documents.PAGES + documents.NOTEBOOKS


def sentences(text: str) -> list[str]:
    """Splits Markdown into sentences; tables, headings, code and what stands in brackets are left out."""
    text = re.sub(r"<!--.*?-->", "", documents.FENCE.sub("", text), flags=re.DOTALL)
    found = []
    for item in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", text):
        if item.lstrip().startswith(("|", "#", "!", "[![", "arch:", "batch:")):
            continue
        item = re.sub(r"!?\[((?:[^\[\]]|\[[^\]]*\])*)\]\([^)]*\)", r"\1", item)
        item = re.sub(r"\([^()]*\)", "", re.sub(r"`[^`]*`", "code", item)).replace("*", "")
        found += re.split(r"(?<=[.!?])\s+(?=[\w\"'])", " ".join(item.split()))
    return found


def too_long(text: str) -> list[str]:
    return [sentence for sentence in sentences(text) if len(re.findall(r"\S*\w\S*", sentence)) > WORDS]


@pytest.mark.parametrize("page", PAGES, ids=documents.name_of)
def test_no_sentence_is_too_long(page):
    assert too_long(documents.text_of(page)) == []


def test_a_long_sentence_is_found():
    long = "word " * WORDS + "end."
    assert too_long(f"Short one. {long}\n\n- {long}\n\n| {long} |\n\n```\n{long}\n```\n") == [long, f"- {long}"]
    assert too_long("word " * (WORDS - 1) + "end. `one two three` (in brackets).") == []


def test_the_first_page_is_short():
    lines = (documents.REPOSITORY / "README.md").read_text().splitlines()
    assert len(lines) <= 165
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []
