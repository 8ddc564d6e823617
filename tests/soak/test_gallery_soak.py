"""A few rounds of the soak test of galleries, and that it finds what it looks for."""

from pathlib import Path

import soak_gallery

from mancs_jax.gallery.gallery import Gallery


def test_a_process_that_is_killed_a_few_times(tmp_path):
    (tmp_path / "disk").mkdir()
    taken, faults = soak_gallery.run(4, 1, tmp_path / "disk", soak_gallery.WAYS[:2], longest=4.0)
    assert faults == [] and taken["kill -9"] + taken["SIGTERM"] == 4


def model_of(place: Path, people: range) -> soak_gallery.Model:
    model = soak_gallery.Model()
    with Gallery(place / "soak.gallery") as gallery:
        for of in people:
            gallery.add(soak_gallery.embedding_of(of), soak_gallery.names_of(of), person=of, network="soak")
            model.apply(soak_gallery.ADD, of)
    return model


def test_what_is_wrong_is_found(tmp_path):
    model = model_of(tmp_path, range(4))
    assert soak_gallery.faults_of(tmp_path, model, 0) == []
    model.apply(soak_gallery.ADD, 7)
    assert soak_gallery.faults_of(tmp_path, model, 0) == ["30 images lost, 0 came back"]
    model.apply(soak_gallery.FORGET, 7)
    model.apply(soak_gallery.FORGET, 2)
    assert soak_gallery.faults_of(tmp_path, model, 0) == ["0 images lost, 30 came back"]
    with Gallery(tmp_path / "soak.gallery") as gallery:
        gallery.forget(person=2)
        assert soak_gallery.faults_of(tmp_path, model, 0) == []
        (tmp_path / "stray").write_bytes(soak_gallery.embedding_of(2)[5].tobytes()[7:60])
        assert soak_gallery.faults_of(tmp_path, model, 0) == ["embedding 5 of 2 is left"]
        (tmp_path / "stray").unlink()
        changed = soak_gallery.embedding_of(1)
        changed[0] = -changed[0]
        gallery.add(changed, soak_gallery.names_of(1), person=1)
    found = soak_gallery.faults_of(tmp_path, model, 0)
    assert found == [] or set(found) == {"a search differs from brute force"}
    model.open = (soak_gallery.FORGET, 3)
    with Gallery(tmp_path / "soak.gallery") as gallery:
        gallery.forget(name=f"{soak_gallery.names_of(3)[0]}")
    assert "forget 3 was done in part: 29 images" in soak_gallery.faults_of(tmp_path, model, 0)
