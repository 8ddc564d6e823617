"""Two processes that write into a gallery while four read it; bounded by numbers of rounds, not by a clock."""

import multiprocessing
from pathlib import Path

from gallery_stores import NETWORK, drawn, fill, names_of

from mancs_jax.gallery.gallery import Gallery


def write_rounds(path: str, writer: int, rounds: int) -> None:
    """Adds 20 images in each round, and forgets some in every fifth."""
    with Gallery(path) as gallery:
        for number in range(rounds):
            of = f"writer{writer}/{number:03d}"
            gallery.add(drawn(20, seed=1000 * writer + number), names_of(20, of), person=of, network=NETWORK)
            if number % 5 == 4:
                gallery.forget(person=f"writer{writer}/{number - 2:03d}")


def read_rounds(path: str, reader: int, rounds: int) -> None:
    """Searches in each round."""
    with Gallery(path) as gallery:
        for number in range(rounds):
            matches = gallery.search(drawn(2, seed=reader + number), 5)
            assert all(len(of) == 5 and sorted(of) == of for of in matches)
            gallery.people()


def work_together(path: Path, rounds: int) -> None:
    """Fills a new gallery, lets the six processes work, and checks all that is in it (AssertionError)."""
    with Gallery(path) as gallery:
        fill(gallery)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_rounds, args=(str(path), i, rounds)) for i in range(2)]
    processes += [context.Process(target=read_rounds, args=(str(path), i, 2 * rounds)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    with Gallery(path) as gallery:
        gallery.forget()  # what a reader delayed
        assert gallery.check() == []
        left = [number for number in range(rounds) if number % 5 != 2 or number + 2 >= rounds]
        expected = {f"writer{writer}/{number:03d}" for writer in range(2) for number in left}
        assert {of.person for of in gallery.people(name="writer*")} == expected
        assert len(gallery) == 200 + 20 * len(expected)
