"""The people of a gallery and their numbers of images: on the screen, and as a page."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from mancs_jax.gallery.entry import Person
from mancs_jax.gallery.filters import moment_text
from mancs_jax.gallery.gallery import Gallery

HEAD = ("person", "images", "cameras", "first", "last")


class Summary(NamedTuple):
    """What a gallery has, as far as it matches filters."""

    images: int
    people: list[Person]  # most images first; None, images without a person, last
    cameras: dict[str | None, int]
    network: str
    width: int


def summary(gallery: Gallery, **conditions: Any) -> Summary:
    """Counts the images that match filters, see `Gallery.search`."""
    people, facts = gallery.people(**conditions), gallery.facts
    number = sum(of.images for of in people)
    return Summary(number, people, gallery.cameras(**conditions), facts.network, facts.width)


def facts_of(of: Summary) -> dict[str, str]:
    """What the gallery has, name -> text."""
    known = [person for person in of.people if person.person is not None]
    times = [at for person in of.people for at in (person.first, person.last) if at is not None]
    cameras = [f"{'unknown' if camera is None else camera}: {number:,}" for camera, number in of.cameras.items()]
    return {
        "images": f"{of.images:,}",
        "people": f"{len(known):,}",
        "without a person": f"{of.images - sum(person.images for person in known):,}",
        "cameras": ", ".join(cameras) or "none",
        "times": f"{moment_text(min(times))} to {moment_text(max(times))}" if times else "none",
        "embeddings": f"{of.width} wide, model {of.network[:8] or 'unknown'}",
    }


def as_text(of: Summary, most: int) -> str:
    """Facts, and a table of the people with most images."""
    facts = facts_of(of)
    width = max(map(len, facts))
    lines = [f"{name:<{width}}  {text}" for name, text in facts.items()]
    rows = table(of)[: most + 1]
    if len(rows) > 1:
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines += ["", *("  ".join(map(str.rjust, row, widths)).rstrip() for row in rows)]
    if (more := len(of.people) - most) > 0 and most:
        lines.append(f"and {more:,} more: --most=N lists N, --report=FILE.html all")
    return "\n".join(lines)


def table(of: Summary) -> Sequence[tuple[str, ...]]:
    """A head, and a row for each person."""
    return [HEAD] + [
        (
            "unknown" if person.person is None else person.person,
            f"{person.images:,}",
            f"{person.cameras:,}",
            moment_text(person.first) or "-",
            moment_text(person.last) or "-",
        )
        for person in of.people
    ]


def page(of: Summary, place: str) -> str:
    """The page of all people, HTML, see `reporting.report.table_html`."""
    from mancs_jax.reporting.report import table_html

    return table_html("People", place, facts_of(of), table(of))
