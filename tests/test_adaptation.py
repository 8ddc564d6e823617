"""Networks adapted to cameras: statistics against PyTorch in float64, files, thresholds, and what uses them."""

import csv
import json
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from drawn_network import drawn_images, drawn_network
from refusals import refused
from tiny_workdir import WIDTH, write_workdir

import mancs_jax
from mancs_jax import scoring
from mancs_jax.cli import adapt as command
from mancs_jax.cli import embed as embed_command
from mancs_jax.cli import search as search_command
from mancs_jax.cli import verify as verify_command
from mancs_jax.cli.command_line import run
from mancs_jax.data.arrays import Split
from mancs_jax.data.augment import normalize
from mancs_jax.data.sources.labels import Label
from mancs_jax.evaluation.analyses import Analyses
from mancs_jax.evaluation.frames import frame_distances, frame_thresholds
from mancs_jax.inference import adaptation, network
from mancs_jax.inference.adaptation import LEAST_IMAGES, adapt, camera_statistics
from mancs_jax.inference.export import export
from mancs_jax.inference.forward import embed
from mancs_jax.inference.gallery import cameras_by_name
from mancs_jax.inference.network import fingerprint_of, network_of_camera
from mancs_jax.inference.network_file import card_of, write_network
from mancs_jax.inference.trained import load_trained
from mancs_jax.kernels.conv_norm import MOMENTUM
from mancs_jax.models.mancs import create_model
from mancs_jax.training.description import Description

torch = pytest.importorskip("torch")
import torch_resnet  # noqa: E402

CAMERAS = {2: adaptation.BATCH, 7: adaptation.BATCH + 6}  # camera -> images


def assert_near(found, expected, tolerance=1e-4):
    """Trees of statistics are equal to a part of the largest number of each leaf."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for path, leaf in jax.tree.leaves_with_path(expected):
        other = dict(jax.tree.leaves_with_path(found))[path]
        np.testing.assert_allclose(other, leaf, rtol=0, atol=tolerance * np.abs(leaf).max(), err_msg=str(path))


class Reference:
    """A ResNet-10 in PyTorch and float64, and the same as a `Network`."""

    def __init__(self):
        torch.set_num_threads(1)  # its threads would wait for each other on a busy machine
        self.model = torch_resnet.randomize(torch_resnet.create("resnet10", width=8), 0).double().eval()
        params, statistics = torch_resnet.to_flax(self.model.state_dict())
        ours = drawn_network("small", arch="resnet10", fab_stages=(), last_activation="relu", cls_head="fc")
        assert jax.tree.structure(ours.variables["params"]["backbone"]) == jax.tree.structure(params)
        params = ours.variables["params"] | {"backbone": params}
        variables = {"params": params, "batch_stats": {"backbone": statistics}}
        self.network = ours._replace(variables=jax.tree.map(np.float32, variables))
        self.layers = []  # in the order in which they are called
        hooks = [
            layer.register_forward_hook(lambda layer, *_: self.layers.append(layer))
            for layer in self.model.modules()
            if isinstance(layer, torch.nn.BatchNorm2d)
        ]
        self.model(torch.zeros(1, 3, 64, 32, dtype=torch.float64))
        for hook in hooks:
            hook.remove()
        self.own = [(layer.running_mean.clone(), layer.running_var.clone()) for layer in self.layers]

    def run(self, image):
        pixels = np.asarray(normalize(image), np.float64).transpose(0, 3, 1, 2)
        with torch.no_grad():
            self.model(torch.from_numpy(pixels))

    def set(self, layer, mean, var, weight):
        own_mean, own_var = self.own[self.layers.index(layer)]
        layer.running_mean.copy_((1 - weight) * own_mean + weight * mean)
        layer.running_var.copy_((1 - weight) * own_var + weight * var)

    def statistics(self):
        return {"backbone": torch_resnet.to_flax(self.model.state_dict())[1]}

    def layer_by_layer(self, image, weight):
        """The inputs of one layer after the other, with those before it adapted already."""
        for layer in self.layers:
            inputs = []
            hook = layer.register_forward_pre_hook(lambda _, arguments, inputs=inputs: inputs.append(arguments[0]))
            for start in range(0, len(image), 5):
                self.run(image[start : start + 5])
            hook.remove()
            x = torch.cat(inputs)
            self.set(layer, x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0), weight)
        return self.statistics()

    def batch_by_batch(self, batches, weight, counted=None):
        """All layers of a batch at once, by its own moments; then the moments of all images that are counted."""
        moments, numbers = ({layer: [] for layer in self.layers} for _ in range(2))
        counted = iter([(number, layer) for number in counted or map(len, batches) for layer in self.layers])

        def before(layer, arguments):
            x = arguments[0]
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            number, called = next(counted)
            assert called is layer
            own = x[:number]
            moments[layer].append(number * torch.stack([own.mean((0, 2, 3)), (own**2).mean((0, 2, 3))]))
            numbers[layer].append(number)
            self.set(layer, mean, var, weight)

        hooks = [layer.register_forward_pre_hook(before) for layer in self.layers]
        for image in batches:
            self.run(image)
        for hook in hooks:
            hook.remove()
        for layer in self.layers:
            mean, square = torch.stack(moments[layer]).sum(0) / sum(numbers[layer])
            self.set(layer, mean, square - mean**2, weight)
        return self.statistics()


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_one_batch_gives_what_a_loop_over_layers_gives(weight):
    reference, image = Reference(), drawn_images(12)
    found = camera_statistics(reference.network, [image], weight)
    assert_near(found, reference.layer_by_layer(image, weight))


def test_several_batches_are_pooled():
    reference, image = Reference(), drawn_images(24)
    batches = [image[:8], image[8:16], image[16:]]
    found = camera_statistics(reference.network, batches, 0.6)
    assert_near(found, reference.batch_by_batch(batches, 0.6))
    # Near those of one batch, and not equal: each batch is normalised by its own statistics.
    exact = reference.layer_by_layer(image, 0.6)
    assert_near(found, exact, tolerance=0.2)
    with pytest.raises(AssertionError):
        assert_near(found, exact)


def test_each_image_counts_once():
    """The last batch is filled up with the first images, which are counted already."""
    reference, image = Reference(), drawn_images(9)
    found = camera_statistics(reference.network, [image[:8], image[8:]], 0.6)
    filled = [image[:8], np.concatenate([image[8:], image[:7]])]
    assert_near(found, reference.batch_by_batch(filled, 0.6, counted=[8, 1]))
    with pytest.raises(AssertionError):
        assert_near(found, reference.batch_by_batch(filled, 0.6))


def test_the_first_layer_by_hand():
    reference, image = Reference(), drawn_images(6)
    own = reference.network.variables["batch_stats"]
    kernel = np.float64(reference.network.variables["params"]["backbone"]["conv1"]["kernel"])
    x = np.pad(np.asarray(normalize(image), np.float64), ((0, 0), (3, 3), (3, 3), (0, 0)))
    rows = [
        np.einsum("bhwc,hwcd->bd", x[:, i : i + 7, j : j + 7], kernel) for i in range(0, 64, 2) for j in range(0, 32, 2)
    ]
    found = camera_statistics(reference.network, [image], 0.25)["backbone"]["bn1"]
    for name, moment in (("mean", np.mean), ("var", np.var)):
        expected = 0.75 * own["backbone"]["bn1"][name] + 0.25 * moment(np.concatenate(rows), axis=0)
        np.testing.assert_allclose(found[name], expected, rtol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, camera_statistics(reference.network, [image], 0.0), own)


@pytest.mark.parametrize(
    ("variant", "model"),
    [
        ("authors", {"arch": "resnet10"}),
        ("small", {"ibn_stages": (2, 3), "stem_norm": "instance"}),
        ("small", {"ibn_stages": (2, 3, 4), "mixstyle_stages": (2,), "dropout": 0.1}),
    ],
)
def test_with_weight_1_a_batch_is_normalised_as_in_training(variant, model):
    drawn, image = drawn_network(variant, **model), drawn_images(8)
    module = create_model(drawn.config, drawn.num_classes).clone(
        mixstyle_stages=(), dropout=0.0, devices_groups=0, groups=1
    )
    zeros = jax.tree.map(np.zeros_like, drawn.variables["batch_stats"])
    _, updated = jax.jit(module.apply, static_argnames=("train", "mutable"))(
        drawn.variables | {"batch_stats": zeros}, normalize(image), train=True, mutable=("batch_stats",)
    )
    in_training = jax.tree.map(lambda leaf: leaf / (1 - MOMENTUM), updated["batch_stats"])
    found = camera_statistics(drawn, [image], 1.0)
    assert_near(found["backbone"], in_training["backbone"], tolerance=2e-3)
    heads = {name: tree for name, tree in found.items() if name != "backbone"}  # no embedding depends on them
    jax.tree.map(np.testing.assert_array_equal, heads, {name: drawn.variables["batch_stats"][name] for name in heads})


def picture(camera, number):
    """Coloured noise, darker under camera 7."""
    colour = np.random.default_rng([camera, number]).integers(0, 256, 3)
    noise = np.random.default_rng(number).integers(-30, 30, (64, 32, 3))
    return np.clip((colour + noise) * (0.4 if camera == 7 else 1), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workdir w, images of two cameras with a CSV, and the network adapted to them, site."""
    place = tmp_path_factory.mktemp("place")
    write_workdir(place / "w")
    rows = [("path", "camid", "frame")]
    (place / "boxes").mkdir()
    for camera, number in CAMERAS.items():
        for i in range(number):
            name = f"{camera}_{i:03d}.png"
            assert cv2.imwrite(str(place / "boxes" / name), picture(camera, i)[:, :, ::-1])
            # Frames of three people; both cameras have a frame 5; the last ones are unknown.
            rows.append((name, camera, i // 3 if i < 30 else ""))
    with (place / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    adapt(place / "w", place / "boxes", place / "boxes.csv", place / "site", progress=False)
    return place


def images_of(camera):
    return np.stack([picture(camera, i) for i in range(CAMERAS[camera])])


@pytest.fixture(autouse=True)
def nothing_said():
    network._say_unknown.cache_clear()


def test_each_camera_has_the_statistics_of_its_images(place):
    own, site = load_trained(place / "w").network, load_trained(place / "site").network
    assert list(site.cameras) == ["2", "7"]
    jax.tree.map(np.testing.assert_array_equal, site.variables, own.variables)
    expected = camera_statistics(own, [images_of(2)], adaptation.WEIGHT)  # as many as a batch
    assert_near(site.cameras["2"], expected)
    batches = np.split(images_of(7)[np.random.default_rng(7).permutation(CAMERAS[7])], [adaptation.BATCH])
    assert_near(site.cameras["7"], camera_statistics(own, batches, adaptation.WEIGHT))
    plain = mancs_jax.load(place / "w")(images_of(7))
    expected = embed(own._replace(variables=own.variables | {"batch_stats": site.cameras["7"]}), images_of(7))
    np.testing.assert_allclose(mancs_jax.load(place / "site")(images_of(7), camera=7), expected, rtol=0, atol=1e-5)
    assert np.abs(plain - expected).max() > 0.05 * np.abs(expected).max()


def test_the_card_says_what_it_is_adapted_to(place):
    path = place / "site" / "site.json"
    card = json.loads(path.read_text())
    base = load_trained(place / "w").card
    assert card["adapted"] == {
        "network": base["network"],
        "weight": adaptation.WEIGHT,
        "cameras": {str(camera): number for camera, number in CAMERAS.items()},
    }
    assert (card["name"], card["dtype"], card["scores"]) == ("site", "float32", None)
    assert card["network"] != base["network"] and card["config"] == json.loads(json.dumps(base["config"]))
    assert str(place) not in path.read_text()


def test_thresholds_are_those_of_people_in_one_frame(place):
    card = load_trained(place / "site").card
    embedder = mancs_jax.load(place / "site")
    frames = np.arange(30) // 3
    embedding = np.concatenate([embedder(images_of(camera)[:30], camera=camera) for camera in CAMERAS])
    frame = np.concatenate([frames, 100 + frames])  # frame 5 of one camera is not frame 5 of the other
    thresholds = card["thresholds"]
    assert thresholds["set_on"] == "pairs of people in one frame, 20 frames of the site"
    for distance in ("euclidean", "cosine"):
        expected = frame_thresholds(frame_distances(embedding, frame, distance))
        assert [point["pairs"] for point in thresholds[distance]] == [60, 60, 60]
        for found, point in zip(thresholds[distance], expected, strict=True):
            assert found.keys() == point.keys()
            assert (found["max_distance"] is None) == (point["max_distance"] is None)
    assert [point["max_distance"] for point in thresholds["euclidean"]] == [None] * 3  # 0.01 of 60 pairs is none


def test_a_threshold_knows_frames(place):
    embedder = mancs_jax.load(place / "site")
    points = [{"max_fpr": 0.001, "max_distance": 1.5, "fpr": 0.0005, "pairs": 4000}]
    embedder.card["thresholds"] = {"set_on": "frames", "euclidean": points}
    threshold = mancs_jax.threshold_of(embedder)
    assert threshold.words() == "1.5 (false positive rate 0.1 % within a frame, uncertain: it rests on 2 pairs)"


def test_one_camera_or_one_for_each_image(place, capsys):
    embedder, mixed = mancs_jax.load(place / "site"), np.concatenate([images_of(7)[:5], images_of(2)[:4]])
    order = np.random.default_rng(0).permutation(9)
    camera = np.array([7] * 5 + [2] * 4)[order]
    expected = np.concatenate([embedder(mixed[:5], camera=7), embedder(mixed[5:], camera=2)])[order]
    for images in (mixed[order], iter(mixed[order]), [place / "boxes" / "7_000.png", *mixed[order][1:]]):
        found = embedder(images, camera=camera)
        np.testing.assert_allclose(found[1:], expected[1:], rtol=0, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(embedder(mixed[order], camera=camera.tolist()), embedder(mixed[order], camera=camera))
    for same in (camera.astype(str), [f" 0{each}" for each in camera]):
        np.testing.assert_array_equal(embedder(mixed[order], camera=same), embedder(mixed[order], camera=camera))
    box = [[0, 0, 32, 64]]
    np.testing.assert_array_equal(embedder(mixed[0], boxes=box, camera=7), embedder(mixed[:1], camera=7))
    assert embedder([], camera=[]).shape == embedder([], camera=7).shape == (0, WIDTH)
    assert embedder.cameras == ("2", "7") and "not one of" not in capsys.readouterr().err
    for wrong, line in (
        ([2, 7], "camera has 2 names for 9 images: give one for each image"),
        (2.0, "camera is 2.0: it has to be a name or an integer, or one for each image"),
        ([None] * 9, "camera is [None, "),
        ([[2]] * 9, "camera is "),
    ):
        assert refused(embedder, mixed, camera=wrong).startswith(line)
    assert refused(embedder, mixed[0], box, camera=[7]).startswith("boxes come from one frame")
    wrong = [*mixed[:8], np.zeros((4, 4), np.uint8)]
    assert refused(embedder, wrong, camera=camera).startswith("image 8 is uint8 [4, 4]")


def test_an_unknown_camera_uses_the_networks_own_statistics(place, capsys):
    embedder, plain, image = mancs_jax.load(place / "site"), mancs_jax.load(place / "w"), images_of(2)[:3]
    for _ in range(2):
        np.testing.assert_array_equal(embedder(image, camera=5, progress=False), plain(image, progress=False))
    line = (
        "camera 5 is not one of this model's cameras (2, 7): images of cameras that it does not know are embedded "
        "with the model's own statistics\n"
    )
    assert capsys.readouterr().err == line  # once
    np.testing.assert_array_equal(embedder(image), plain(image))
    found = embedder(image, camera=[9, 2, 8])
    np.testing.assert_allclose(found[[0, 2]], plain(image)[[0, 2]], rtol=0, atol=1e-5 * np.abs(found).max())
    np.testing.assert_allclose(found[1:2], embedder(image[1:2], camera=2), rtol=0, atol=1e-5 * np.abs(found).max())
    assert capsys.readouterr().err.startswith("camera 9 is not one")
    for nothing in (-1, "", ["-1", "", " "]):
        np.testing.assert_array_equal(embedder(image, camera=nothing), plain(image))
    assert "is not one" not in capsys.readouterr().err
    np.testing.assert_array_equal(plain(image, camera=3, progress=False), plain(image))
    assert capsys.readouterr().err.startswith("camera 3 makes no difference: this model is not adapted to cameras")


def test_cameras_share_one_program(place, monkeypatch):
    from mancs_jax.inference import forward

    traces = []
    monkeypatch.setattr(forward, "normalize", lambda image: traces.append(1) or normalize(image))
    forward._compiled.cache_clear()
    embedder = mancs_jax.load(place / "site", batch=8, devices=jax.devices()[:1])
    for camera in (2, 7, None):
        embedder(images_of(2)[:3], camera=camera)
    assert len(traces) == 1


@pytest.mark.parametrize("suffix", ["onnx", "jax"])
def test_an_exported_file_has_one_camera(place, suffix, capsys):
    if suffix == "onnx":
        pytest.importorskip("onnxruntime")
    path, image = place / f"camera7.{suffix}", images_of(7)
    export(place / "site", path, camera=7)
    exported, embedder = mancs_jax.load(path), mancs_jax.load(place / "site")
    expected = embedder(image, camera=7)
    assert np.abs(exported(image) - expected).max() <= 1e-5 * np.abs(expected).max()
    np.testing.assert_array_equal(exported(image, camera=7), exported(image))
    assert exported.network == embedder.network and exported.card["camera"] == "7" and exported.cameras == ()
    if suffix == "jax":  # a card of an earlier version
        card = json.loads((place / "camera7.jax.json").read_text())
        (place / "camera7.jax.json").write_text(json.dumps(card | {"camera": 7}))
        exported = mancs_jax.load(path)
        np.testing.assert_array_equal(exported(image, camera="7"), exported(image))
    line = "the exported file has the statistics of camera 7 only"
    assert refused(exported, image, camera=2).startswith(line)
    assert refused(export, place / "site", path) == (
        "the model is adapted to cameras, and a file has the statistics of one: 2, 7"
    )
    assert refused(export, place / "site", path, camera=3).endswith("the statistics of one: 2, 7, not 3")
    assert refused(export, place / "w", path, camera=3).startswith("camera 3: the model is not adapted to cameras")


@pytest.mark.parametrize("suffix", ["onnx", "jax"])
def test_a_camera_of_a_network_with_instance_norm(tmp_path, suffix):
    if suffix == "onnx":
        pytest.importorskip("onnxruntime")
    drawn, image = drawn_network("small", ibn_stages=(2, 3), stem_norm="instance"), drawn_images(8)
    cameras = {"4": camera_statistics(drawn, [image // 3])}
    assert cameras["4"]["backbone"].keys() == drawn.variables["batch_stats"]["backbone"].keys()  # without the stem
    site = drawn._replace(cameras=cameras)
    card = card_of(site, 1, Description(drawn.config.to_dict(), drawn.num_classes, "f"))
    write_network(tmp_path, "site", site, card, "float32")
    embedder = mancs_jax.load(tmp_path)
    expected = embedder(image, camera=4)
    export(tmp_path, tmp_path / f"camera.{suffix}", camera=4)
    found = mancs_jax.load(tmp_path / f"camera.{suffix}")(image)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.abs(embedder(image) - expected).max() > 0.01 * np.abs(expected).max()


def test_evaluation_embeds_each_image_by_its_own_camera(place):
    site = load_trained(place / "site")
    image = np.concatenate([images_of(2)[:20], images_of(7)[:20], images_of(2)[20:25]])
    camid = np.array([2] * 20 + [7] * 20 + [4] * 5)
    found = embed(site.network, image, camid)
    expected = [embed(network_of_camera(site.network, camera), image[camid == camera]) for camera in (2, 7, 4)]
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=0, atol=1e-5 * np.abs(found).max())
    np.testing.assert_array_equal(expected[2], embed(load_trained(place / "w").network, image[40:]))
    np.testing.assert_array_equal(
        embed(load_trained(place / "w").network, image, camid)[:1], embed(site.network, image)[:1]
    )


def test_the_commands(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr("mancs_jax.cli.command_line.keep_compiled_programs", lambda: None)
    few = ["path,camid", *(f"2_{i:03d}.png,2" for i in range(CAMERAS[2]))]
    (place / "few.csv").write_text("\n".join(few))
    run(command, ["adapt", "--workdir=w", "--source=boxes", "--csv=few.csv", "--output=half", "--weight=0.25"])
    said = capsys.readouterr().out
    assert f"camera 2: {CAMERAS[2]} images" in said and "no thresholds: no two people" in said
    assert 'mancs_jax.load("half")' in said
    half, site = load_trained("half"), load_trained("site")
    assert half.card["adapted"]["weight"] == 0.25 and half.card["thresholds"] is None
    own = site.network.variables["batch_stats"]["backbone"]["bn1"]["mean"]
    quarter, full = (each.network.cameras["2"]["backbone"]["bn1"]["mean"] - own for each in (half, site))
    np.testing.assert_allclose(quarter, full * 0.25 / adaptation.WEIGHT, rtol=1e-3, atol=1e-6)

    (place / "photos").mkdir()
    for i in range(3):  # names that tell the camera
        cv2.imwrite(str(place / "photos" / f"{i:04d}_c7s1_000001_00.png"), picture(7, i)[:, :, ::-1])
    embedder = mancs_jax.load("site")
    by_camera = [embedder(images_of(7)[:3], camera=camera) for camera in (7, 2)]
    names = [f"{i:04d}_c7s1_000001_00.png" for i in range(3)]
    (place / "people.csv").write_text("path,pid\n" + "".join(f"{name},anna\n" for name in names))
    for flags, expected in (
        ([], by_camera[0]),
        (["--camera=2"], by_camera[1]),
        (["--csv=people.csv"], by_camera[0]),  # which has no cameras: the names tell them
        (["--csv=people.csv", "--camera=2"], by_camera[1]),
    ):
        run(embed_command, ["embed", "photos", "--network=site", "--output=gallery.npz", *flags])
        with np.load("gallery.npz") as gallery:
            np.testing.assert_allclose(gallery["embedding"], expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    capsys.readouterr()
    (place / "query.csv").write_text("path,pid,camid\n2_001.png,5,2\n")
    query = embedder(images_of(2)[1:2], camera=2)
    for flag in ("--camera=2", "--csv=query.csv"):
        run(search_command, ["search", "boxes/2_001.png", "--gallery=gallery.npz", "--network=site", flag, "--k=1"])
        distance = float(capsys.readouterr().out.split("\n")[1].split()[1])
        assert distance == pytest.approx(np.linalg.norm(by_camera[1] - query, axis=1).min(), rel=1e-3)


def test_verify_has_a_camera_for_each_image(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr("mancs_jax.cli.command_line.keep_compiled_programs", lambda: None)
    images = [Path("boxes") / f"{camera}_000.png" for camera in (2, 7)]
    embedder = mancs_jax.load("site")

    def verified(*flags):
        with pytest.raises(SystemExit):
            run(verify_command, ["verify", *map(str, images), "--network=site", "--max_distance=0", *flags])
        said = capsys.readouterr()
        return float(said.out.split("distance ")[1].split(",")[0]), said.err

    for flags, camera in (
        (["--camera=2", "--second_camera=7"], [2, 7]),
        (["--camera=7"], 7),
        ([], None),
    ):
        distance, told = verified(*flags)
        first, second = embedder([place / image for image in images], camera=camera)
        assert distance == pytest.approx(np.linalg.norm(first - second), rel=1e-3)
        assert ("is adapted to cameras, and the images have none" in told) == (camera is None)
    with pytest.raises(SystemExit, match="give that of the first one as --camera"):
        run(verify_command, ["verify", *map(str, images), "--network=site", "--second_camera=7"])


def test_cameras_of_a_csv_by_name():
    label = Label("a.png", "a.png", 1, 0, "anna", "door", "")
    names = ["a.png", "b.png", "0002_c7s1_000451_03.png"]
    assert cameras_by_name(names, {"a.png": label}) == dict(zip(names, ["door", "", "7"], strict=True))
    assert cameras_by_name(names, {"a.png": label._replace(camera="")}) is None


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"weight": 1.5}, "weight is 1.5: it has to be from 0"),
        ({"output": "si te"}, "--output=si te: the folder's name may have letters, digits"),
        ({"csv": "none.csv"}, "there is no none.csv, neither on disk nor in "),
        (
            {"rows": ["path,camid,frame,x"]},
            "boxes.csv line 1: is 'path,camid,frame,x'; it has to be 'path,camid,frame'",
        ),
        ({"rows": ["path,camid"]}, "boxes.csv: no images are listed"),
        (
            {"rows": ["path,camid", "2_000.png, ", "7_000.png,-3", "7_001.png,1.5"]},
            "boxes.csv line 2: camid '' is neither an integer from 0 nor a name, line 3: camid '-3' is neither an "
            "integer from 0 nor a name, line 4: camid '1.5' is",
        ),
        ({"rows": ["path,camid", "2_000.png,2", "2_000.png,2"]}, "boxes.csv line 3: path '2_000.png' is there already"),
        ({"rows": ["path,camid", "x.png,2"]}, "boxes.csv line 2: path 'x.png' is no file in boxes"),
        (
            {"rows": ["path,camid", "bad.png,2"]},
            "boxes.csv: take damaged images out of it, or copy them again: bad.png",
        ),
        (
            {"rows": ["path,camid", "2_000.png,2", *(f"7_{i:03d}.png,7" for i in range(LEAST_IMAGES))]},
            f"boxes.csv: statistics of a camera need {LEAST_IMAGES} images, and these have fewer: 2 (1 images); add",
        ),
    ],
)
def test_what_cannot_be_adapted_to(place, tmp_path, monkeypatch, changes, line):
    monkeypatch.chdir(place)
    monkeypatch.setattr(adaptation, "_batch_statistics", None)  # nothing is computed
    (place / "boxes" / "bad.png").write_bytes(b"no picture")
    if "rows" in changes:
        (tmp_path / "boxes.csv").write_text("\n".join(changes.pop("rows")))
        changes["csv"] = tmp_path / "boxes.csv"
        line = f"{tmp_path}/{line}"
    arguments = {"network": "w", "source": "boxes", "csv": "boxes.csv", "output": tmp_path / "site"} | changes
    error = FileNotFoundError if changes.get("csv") == "none.csv" else ValueError
    assert refused(adapt, **arguments, error=error).startswith(line)
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("split", [",split", ""])
def test_the_csv_of_a_labelled_folder_serves_too(place, tmp_path, split):
    end = ",train" if split else ""
    rows = [f"path,pid,camid{split}", *(f"7_{i:03d}.png,{i + 1},7{end}" for i in range(LEAST_IMAGES))]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    _, card = adapt(place / "w", place / "boxes", tmp_path / "labels.csv", tmp_path / "site", progress=False)
    assert card["adapted"]["cameras"] == {"7": LEAST_IMAGES} and card["thresholds"] is None


def test_files_of_an_adapted_network_are_checked(place, tmp_path):
    from mancs_jax.inference.network_file import read_network
    from mancs_jax.weights.safetensors_file import read_safetensors, write_safetensors

    tensors = dict(read_safetensors(place / "site" / "site.safetensors"))
    text = (place / "site" / "site.json").read_text()
    path = tmp_path / "site.safetensors"

    def line_of(tensors):
        write_safetensors(tensors, path)
        (tmp_path / "site.json").write_text(text)
        return refused(read_network, path)

    name = "cameras.7.backbone.bn1.mean"
    assert line_of(tensors | {name: tensors[name] + 1}).startswith(f"{path} has other numbers than site.json says")
    assert f"{name} is missing" in line_of({key: leaf for key, leaf in tensors.items() if key != name})
    assert f"{name} is (3,)" in line_of(tensors | {name: tensors[name][:3]})
    assert "cameras.x.backbone.bn1.mean is missing, but (8,) in" in line_of(tensors | {"cameras.x.mean": tensors[name]})
    assert "cameras.x y.mean is (8,), but missing in the model" in line_of(
        tensors | {"cameras.x y.mean": tensors[name]}
    )


NAMES = {"2": "Tür 2.b/~%41", "7": "door"}  # other names for the cameras


@pytest.fixture(scope="module")
def named(place):
    """A network adapted to the same images, whose cameras have names: named."""
    rows = (place / "boxes.csv").read_text().splitlines()
    for camera, name in NAMES.items():
        rows = [row.replace(f".png,{camera},", f".png,{name},") for row in rows]
    (place / "named.csv").write_text("\n".join(rows), encoding="utf-8")
    adapt(place / "w", place / "boxes", place / "named.csv", place / "named", progress=False)
    return place


def test_cameras_have_names(named, capsys):
    card, embedder = load_trained(named / "named").card, mancs_jax.load(named / "named")
    assert card["adapted"]["cameras"] == {NAMES[str(camera)]: number for camera, number in CAMERAS.items()}
    assert card["thresholds"] == load_trained(named / "site").card["thresholds"]  # frame 5 is another under each
    assert embedder.cameras == ("door", NAMES["2"])
    # In other batches, so that the statistics are near those of the network whose cameras are numbers.
    site = mancs_jax.load(named / "site")
    image = np.concatenate([images_of(2)[:4], images_of(7)[:4]])
    expected = site(image, camera=[2] * 4 + [7] * 4)
    found = embedder(image, camera=[NAMES["2"]] * 4 + ["door"] * 4)
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected - site(image)).max()
    np.testing.assert_array_equal(embedder(image[4:], camera="door"), embedder(image[4:], camera=" door "))
    assert "not one of" not in capsys.readouterr().err
    np.testing.assert_array_equal(embedder(image, camera=7), site(image))
    assert f"camera 7 is not one of this model's cameras (door, {NAMES['2']})" in capsys.readouterr().err


def test_a_file_with_one_camera_by_name(named, tmp_path):
    line = f"the statistics of one: door, {NAMES['2']}, not gate"
    assert refused(export, named / "named", tmp_path / "f.jax", camera="gate").endswith(line)
    export(named / "named", tmp_path / "f.jax", camera="door")
    exported, expected = (
        mancs_jax.load(tmp_path / "f.jax"),
        mancs_jax.load(named / "named")(images_of(7), camera="door"),
    )
    assert exported.card["camera"] == "door"
    assert np.abs(exported(images_of(7), camera="door") - expected).max() <= 1e-5 * np.abs(expected).max()
    assert refused(exported, images_of(7), camera=7).startswith("the exported file has the statistics of camera door")


def test_commands_take_names_of_cameras(named, monkeypatch):
    monkeypatch.chdir(named)
    monkeypatch.setattr("mancs_jax.cli.command_line.keep_compiled_programs", lambda: None)
    (named / "few").mkdir()
    for camera in CAMERAS:
        (named / "few" / f"{camera}.png").write_bytes((named / "boxes" / f"{camera}_000.png").read_bytes())
    (named / "few.csv").write_text(f"path,pid,camid\n2.png,anna,{NAMES['2']}\n7.png,ben,door\n", encoding="utf-8")
    embedder = mancs_jax.load("named")
    image = np.concatenate([images_of(camera)[:1] for camera in CAMERAS])
    for flag, camera in (("--camera=door", "door"), ("--csv=few.csv", [NAMES["2"], "door"])):
        run(embed_command, ["embed", "few", "--network=named", "--output=few.npz", flag])
        expected = embedder(image, camera=camera)
        with np.load("few.npz") as gallery:
            np.testing.assert_allclose(gallery["embedding"], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_evaluation_finds_cameras_by_their_names(named, monkeypatch):
    adapted, camids = load_trained(named / "named").network, [np.array([1, 2, 4]), np.array([2, 3])]
    names: dict[int, str] = {1: "door", 2: NAMES["2"]}
    monkeypatch.setattr(scoring.arrays, "names_of", lambda dataset, root: ({}, names))

    def found(camids):
        return [camera.tolist() for camera in scoring._cameras(adapted, camids, "mine", "data")]

    assert found(camids) == [["door", NAMES["2"], "4"], [NAMES["2"], "3"]]
    assert found([camids[0][:2], camids[1][1:]]) == [["door", NAMES["2"]], ["3"]]  # each has its own, and a name
    names.clear()
    assert found(camids) == [["1", "2", "4"], ["2", "3"]]  # no two queries share a camera, but a gallery image does
    assert found([camids[0], camids[1][1:]]) == [[-1] * 3, [-1]]  # each image is its own camera
    assert scoring._cameras(adapted._replace(cameras={}), camids, "mine", "data")[0] is camids[0]


def test_held_out_images_are_of_no_camera_of_the_site(named, monkeypatch):
    """Neither evaluated nor calibrated on: they have the numbers of cameras of the training data."""
    trained = load_trained(named / "named")
    pid, camid = np.repeat(np.arange(1, 6, dtype=np.int32), 2), np.tile(np.int32([1, 2]), 5)
    split = Split(images_of(7)[:10], pid, camid, np.array([f"{row}.png" for row in range(10)]))
    queries, gallery = (Split(*(field[rows] for field in split)) for rows in (camid == 1, camid == 2))
    seen = []

    def embed_all(image, camera):
        seen.append(camera.tolist())
        return np.random.default_rng(0).normal(size=(len(image), 4)).astype(np.float32)

    monkeypatch.setattr(scoring.arrays, "names_of", lambda dataset, root: ({}, {1: "door", 2: NAMES["2"]}))
    scoring.evaluate_network(trained, validation=(queries, gallery), embed_all=embed_all, progress=False)
    assert seen == [[-1] * 5] * 2
    seen.clear()
    held_out = scoring.HeldOut(queries, gallery, np.zeros(5, int), np.zeros(5, int), "5 people")
    monkeypatch.setattr(scoring, "held_out_images", lambda trained, root: held_out)
    monkeypatch.setattr(scoring, "calibrated", lambda compared, people: {"euclidean": people})
    task = scoring.Task(analyses=Analyses(calibrate=True))
    scoring._calibration(trained, task, "data", embed_all)
    assert seen == [[-1] * 5] * 2


def test_integers_are_stored_as_ever(place):
    """Files of versions whose cameras were integers can be read."""
    site = load_trained(place / "site")
    cameras = {str(camera): site.network.cameras[str(camera)] for camera in CAMERAS}
    assert site.card["network"] == fingerprint_of(site.network.variables | {"cameras": cameras})


def test_training_starts_from_the_network_without_its_cameras(place):
    from mancs_jax.weights.start import load_into

    own = load_trained(place / "w").network
    zeros = jax.tree.map(np.zeros_like, own.variables)
    path = place / "site" / "site.safetensors"
    params, statistics = load_into(zeros["params"], zeros["batch_stats"], path, own.config.model.arch, "f")
    jax.tree.map(np.testing.assert_array_equal, {"params": params, "batch_stats": statistics}, own.variables)
    assert fingerprint_of(own.variables) == load_trained(place / "w").card["network"]
