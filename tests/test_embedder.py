"""The network as a function of images: any kind and number in, the numbers of the evaluation out."""

import dataclasses
import os

import cv2
import jax
import numpy as np
import pytest
import tiny
from PIL import Image
from tiny_runs import write_data
from tiny_sources import write
from tiny_workdir import NUM_CLASSES, WIDTH, write_workdir

import mancs_jax
from mancs_jax.data import arrays, images
from mancs_jax.evaluation.comparison import from_distances
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.inference import forward as embed_module
from mancs_jax.inference.answers import find_queries
from mancs_jax.inference.forward import embed
from mancs_jax.inference.gallery import embed_folder, embed_whole, find_images
from mancs_jax.inference.network import Network, fingerprint_of


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    return path, *write_workdir(path)


@pytest.fixture(scope="module")
def embedder(workdir):
    return mancs_jax.load(workdir[0])


def pictures(number, height=64, width=32):
    return np.random.default_rng(number).integers(0, 256, (number, height, width, 3), dtype=np.uint8)


def encoded():
    return cv2.imencode(".jpg", pictures(1)[0])[1].tobytes()


def assert_same(found, expected):
    assert found.dtype == np.float32 and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_folder_gives_what_the_evaluation_gives(workdir, embedder, tmp_path):
    path, config, variables = workdir
    source = tiny.write_folder(tmp_path / "source")
    write_data(tmp_path / "data", source)
    split = arrays.load_split("market1501", tmp_path / "data", "gallery", config.data.image_size)
    expected = embed(Network(config, NUM_CLASSES, variables), split.image, devices=jax.devices()[:1])
    assert expected.std(axis=0).max() > 0.05  # the images do differ
    files = [source / "bounding_box_test" / name for name in split.name]
    assert_same(embedder(files), expected)
    assert_same(embedder(str(file) for file in files), expected)  # from a generator


def test_what_it_tells_of_itself(workdir, embedder):
    path, config, variables = workdir
    assert (embedder.width, embedder.image_size, embedder.batch) == (WIDTH, (64, 32), 32)
    assert embedder.config.to_dict() == config.to_dict() and embedder.network == fingerprint_of(variables)
    assert mancs_jax.load(path, batch=1).batch == len(jax.local_devices())
    assert mancs_jax.load(path, batch=1, devices=jax.devices()[:1]).batch == 1


def test_one_compilation_for_all_numbers_of_images(workdir, monkeypatch):
    embed_module._compiled.cache_clear()  # of other tests
    traces, normalize = [], embed_module.normalize
    monkeypatch.setattr(embed_module, "normalize", lambda image: traces.append(image.shape) or normalize(image))
    embedder = mancs_jax.load(workdir[0])
    after_loading = len(traces)
    shapes = [embedder(pictures(number)).shape for number in (1, 7, 1000)]
    assert shapes == [(1, WIDTH), (7, WIDTH), (1000, WIDTH)]
    assert traces[after_loading:] == [(4, 64, 32, 3)]  # 32 images over 8 devices, once


def test_every_kind_of_image(embedder, tmp_path):
    image = pictures(3, 50, 40)
    small = np.stack([images.resize(picture, (64, 32)) for picture in image])
    expected = embedder(small)
    file = tmp_path / "a.png"
    assert cv2.imwrite(str(file), image[0, :, :, ::-1])
    for single in (file, str(file), image[0], Image.open(file), Image.fromarray(image[0]), np.array([str(file)])):
        assert_same(embedder(single), expected[:1])
    assert_same(embedder(image), expected)
    assert_same(embedder([small[2], Image.open(file), image[1], file]), expected[[2, 0, 1, 0]])
    assert embedder([]).shape == (0, WIDTH) and embedder(image[:0]).dtype == np.float32


def test_colours_and_orientation_of_files_and_pil_images(embedder, tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (64, 32), dtype=np.uint8)
    colour = np.stack([grey, grey[::-1], grey[:, ::-1]], axis=-1)
    images = {
        "grey.png": (Image.fromarray(grey), np.stack([grey] * 3, axis=-1)),
        "alpha.png": (Image.fromarray(np.dstack([colour, grey])), colour),
        "palette.png": (Image.fromarray(grey).convert("P"), np.stack([grey] * 3, axis=-1)),
    }
    for name, (image, expected) in images.items():
        image.save(tmp_path / name)
        assert_same(embedder([image, tmp_path / name, Image.open(tmp_path / name)]), embedder([expected] * 3))
    lying = tmp_path / "lying.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to stand upright
    Image.fromarray(np.rot90(colour).copy()).save(lying, exif=exif, quality=100, subsampling=0)
    upright = np.rot90(cv2.imread(str(lying), cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_COLOR_RGB), -1)
    assert upright.shape == colour.shape
    assert_same(embedder([lying, Image.open(lying)]), embedder([upright] * 2))


def test_flip_and_normalize(workdir, embedder):
    image = pictures(2)
    both = (embedder(image) + embedder(image[:, :, ::-1])) / 2
    assert_same(mancs_jax.load(workdir[0], flip=True)(image), both)
    norm = np.linalg.norm(embedder(image), axis=1, keepdims=True)
    assert_same(mancs_jax.load(workdir[0], normalize=True)(image), embedder(image) / norm)


def test_other_parameters_have_another_fingerprint(workdir):
    variables = workdir[2]
    other = jax.tree.map(lambda leaf: leaf, variables)
    other["params"]["rank_fc"] = other["params"]["rank_fc"] | {"bias": np.ones(WIDTH, np.float32)}
    assert fingerprint_of(other) != fingerprint_of(variables) == fingerprint_of(jax.device_get(variables))


def test_images_are_read_as_they_are_needed(embedder):
    reads = []

    def images():
        for number in range(1000):
            reads.append(number)
            yield pictures(1)[0]

    batches = embedder.embed_batches(np.stack([image] * 32) for image in images())
    next(batches)
    assert len(reads) <= 3  # one is out, two are under way
    stopped = (picture if number < 200 else "nowhere.jpg" for number, picture in enumerate(images()))
    with pytest.raises(FileNotFoundError, match=r"^nowhere.jpg: no such file$"):
        embedder(stopped)
    assert len(reads) < 260  # a batch beyond the first that fails


@pytest.mark.parametrize(
    ("images", "line"),
    [
        ("nowhere.jpg", "nowhere.jpg: no such file"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3))], r"image 1 is float64 \[4, 4, 3\]: it has to be uint8"),
        (np.zeros((4, 4), np.uint8), r"image 0 is uint8 \[4, 4\]: it has to be uint8 \[height, width, 3\], RGB"),
        (np.zeros((2, 4, 4, 1), np.uint8), r"image 0 is uint8 \[4, 4, 1\]"),
        (
            np.zeros((0, 4, 3), np.uint8),
            r"image 0 is empty, \[0, 4, 3\]: a crop whose box lies outside the frame, or has no area",
        ),
        (np.zeros((0, 4, 3)), r"image 0 is empty, \[0, 4, 3\]: a crop whose box"),
        (np.zeros((4, 0), np.uint8), r"image 0 is empty, \[4, 0\]: a crop whose box"),
        (Image.new("RGB", (0, 4)), r"image 0 is empty, \[4, 0\]: a crop whose box"),
        ([Image.new("F", (4, 0))], r"image 0 is empty, \[0, 4\]: a crop whose box"),
        (b"bytes", "an image cannot be bytes: give a path"),
        (7, "an image cannot be int: give a path"),
        ([None], "image 0 cannot be NoneType: give a path"),
        (Image.new("F", (4, 4)), "image 0 is a PIL image of mode F: convert it to 8 bits"),
    ],
)
def test_what_is_no_image_gets_one_line(embedder, images, line):
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=f"^{line}"):
        embedder(images)


def test_files_that_are_no_images(embedder, tmp_path):
    page = tmp_path / "page.jpg"
    page.write_text("<html>")
    with pytest.raises(ValueError, match="page.jpg: cannot be decoded as an image"):
        embedder([page])
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match="empty.jpg: cannot be decoded as an image"):
        embedder(tmp_path / "empty.jpg")
    with pytest.raises(ValueError, match="is a folder: give the images in it"):
        embedder(tmp_path)


def test_what_cannot_be_loaded(workdir, tmp_path):
    with pytest.raises(FileNotFoundError, match="no model there"):
        mancs_jax.load(tmp_path)
    with pytest.raises(ValueError, match="batch is 0; it has to be at least 1"):
        mancs_jax.load(workdir[0], batch=0)


def test_images_of_every_suffix_are_found_and_what_is_skipped_is_told(embedder, tmp_path):
    image = pictures(1)[0]
    kinds = enumerate((".jpg", ".png", ".bmp", ".webp", ".gif", ".tiff", ".ppm"))
    files = {f"{i}{kind}": cv2.imencode(kind, image)[1].tobytes() for i, kind in kinds}
    files |= dict.fromkeys(("7.jpe", "8.JFIF", "sub/9.jpg/10.jpg"), files["0.jpg"])  # a folder may end in .jpg as well
    no_images = ("notes.txt", "video.mp4", ".hidden.jpg", "@eaDir/0.jpg/THUMB.jpg", "Thumbs.db")
    write(tmp_path, files | dict.fromkeys(no_images, b"x"), False)
    names, others = find_images(tmp_path)
    assert [name.partition(".")[0] for name in names] == [*"012345678", "sub/9"]
    assert others == ["notes.txt", "video.mp4"]
    assert len(embed_folder(tmp_path, embedder, progress=False).embedding) == 10
    write(tmp_path / "empty", {"a.heic": b"x"}, False)
    with pytest.raises(ValueError, match=r"no images in it; it has a\.heic; names of images end in \.jpg, \.jpeg"):
        find_images(tmp_path / "empty")


def test_links_that_give_no_image_are_told(tmp_path):
    write(tmp_path, dict.fromkeys(("album/a.jpg", "album/sub/b.jpg", "photos/c.jpg"), encoded()), False)
    (tmp_path / "photos" / "album").symlink_to(tmp_path / "album")
    (tmp_path / "photos" / "dead.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "photos" / "good.jpg").symlink_to(tmp_path / "album" / "a.jpg")
    told = ["album (a link to a folder)", "dead.jpg (a link that leads nowhere)"]
    assert find_images(tmp_path / "photos") == (["c.jpg", "good.jpg"], told)
    assert find_queries(tmp_path / "photos").not_images == told
    (tmp_path / "lone").mkdir()
    (tmp_path / "lone" / "album").symlink_to(tmp_path / "album")
    with pytest.raises(ValueError, match=r"no images in it; it has album \(a link to a folder\); names of images end"):
        find_images(tmp_path / "lone")


def test_damaged_images_of_a_folder_are_told_and_do_not_stop_the_others(embedder, tmp_path):
    files = {"a.jpg": encoded(), "b.jpg": encoded()[:-20], "c.png": b"x", "d.jpg": b"", "e.jpg": encoded()}
    write(tmp_path, files, False)
    damaged = {"b.jpg": "cut off", "c.png": "damaged, or not an image", "d.jpg": "empty"}
    embedding, names, faults = embed_whole(tmp_path, embedder, find_images(tmp_path)[0], progress=False)
    assert (names, faults) == (["a.jpg", "e.jpg"], damaged)
    np.testing.assert_array_equal(embedding, embedder([tmp_path / "a.jpg", tmp_path / "e.jpg"]))
    assert find_queries(tmp_path) == (tmp_path, ["a.jpg", "b.jpg", "c.png", "d.jpg", "e.jpg"], [])
    for name in ("a.jpg", "e.jpg"):
        (tmp_path / name).unlink()
    message = r"no image in it can be read: b\.jpg \(cut off\), c\.png \(damaged, or not an image\), d\.jpg \(empty\)$"
    with pytest.raises(ValueError, match=message):
        embed_whole(tmp_path, embedder, find_images(tmp_path)[0], progress=False)


def test_images_that_disappear_while_a_folder_is_embedded_are_told(embedder, tmp_path):
    """While the first batch is on the device, three images go, and a folder takes the place of another."""
    write(tmp_path, {f"{i:03d}.jpg": encoded() for i in range(3 * embedder.batch)}, False)
    names, _ = find_images(tmp_path)
    gone = names[embedder.batch : embedder.batch + 3]

    def embed_batches(batches):
        for batch in embedder.embed_batches(batches):
            for name in gone:
                (tmp_path / name).unlink(missing_ok=True)
            if (tmp_path / names[-1]).is_file():
                (tmp_path / names[-1]).unlink()
                (tmp_path / names[-1]).mkdir()
            yield batch

    slow = dataclasses.replace(embedder, embed_batches=lambda batches, *_: embed_batches(one_by_one(batches)))
    embedding, whole, faults = embed_whole(tmp_path, slow, names, progress=False)
    assert faults == dict.fromkeys(gone, "not there any more") | {names[-1]: "cannot be read: Is a directory"}
    assert whole == [name for name in names if name not in faults] and len(embedding) == len(whole)


def one_by_one(batches):
    """Each batch only when the one before has come back."""
    for batch in batches:
        yield from (batch[i : i + 1] for i in range(len(batch)))


def test_names_are_listed_folder_by_folder(tmp_path):
    names = ("b/1.jpg", "a/2.jpg", "a.jpg", "b.jpg", "a/a/1.jpg", "~x.jpg", "B.jpg")
    write(tmp_path, dict.fromkeys(names, b"x"), False)
    os.mkfifo(tmp_path / "pipe.jpg")  # whoever opened it would wait
    images, others = find_images(tmp_path)
    assert images == sorted(images, key=lambda name: name.split("/")) and len(images) == 7
    assert others == ["pipe.jpg (no regular file)"]


def test_a_name_that_begins_with_a_tilde_is_no_home_directory(embedder, tmp_path, monkeypatch):
    (tmp_path / "~x.jpg").write_bytes(encoded())
    monkeypatch.chdir(tmp_path)
    assert len(embed_folder(".", embedder, progress=False).embedding) == 1
    assert len(embed_whole(".", embedder, ["~x.jpg"])[0]) == len(embedder("./~x.jpg")) == 1
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "y.jpg").write_bytes((tmp_path / "~x.jpg").read_bytes())
    np.testing.assert_array_equal(embedder("~/y.jpg"), embedder("./~x.jpg"))


@pytest.mark.parametrize(("flip", "normalize"), [(True, False), (False, True), (True, True)])
def test_thresholds_are_not_for_other_embeddings(flip, normalize):
    assert mancs_jax.load("market1501").card["thresholds"]
    card = mancs_jax.load("market1501", flip=flip, normalize=normalize).card
    assert card["thresholds"] is card["calibration"] is None


@pytest.mark.filterwarnings("ignore:os.fork")
@pytest.mark.filterwarnings("ignore:.*use of fork")
@pytest.mark.parametrize("call", ["embed", "load", "search", "score", "distances", "masks", "adapt", "train"])
def test_a_forked_process_gets_one_line(embedder, workdir, tmp_path, call):
    """It would wait for ever: for threads that were not copied."""
    rows, ones = np.ones((2, 4), np.float32), np.ones(2, int)
    calls = {
        "embed": lambda: embedder(pictures(1)),
        "load": lambda: mancs_jax.load(workdir[0]),
        "search": lambda: mancs_jax.search(rows, rows, 1),
        "score": lambda: mancs_jax.score(rows, ones, ones, rows, ones, 2 * ones),
        "distances": lambda: from_distances(rows.__getitem__, *[Labelled(rows, ones, ones)] * 2),
        "masks": lambda: list(embed_module.run_batches(Network(workdir[1], 1, {}), [])),
        "adapt": lambda: mancs_jax.adapt(workdir[0], tmp_path, tmp_path / "site.csv", tmp_path / "site"),
        "train": lambda: mancs_jax.train_and_evaluate(tiny.get_config(), workdir[0]),
    }
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            calls[call]()
        except RuntimeError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as told:
        line = told.read()
    assert f"process {child} was forked from process {os.getpid()}" in line and "load the model in each worker" in line
