"""Statistics that are matched, samples of other kinds through fit and predict, and wrong uses."""

from __future__ import annotations

import copy
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from tests.contracts.test_inputs import Kept, loaded, read, sound, uint8
from torch import Tensor, nn

from neurenix.data import PREPROCESSES, DataLoader, ListDataset, prepare
from neurenix.errors import (
    ConfigurationError,
    EditError,
    InputMismatchError,
    NeurenixError,
    UnknownNameError,
)
from neurenix.models import PretrainedModel, adopt
from neurenix.nn import evaluating
from neurenix.transfer import (
    AdapterTuner,
    Finetuner,
    LoraTuner,
    adapt_channels,
    adapt_length,
    adapt_resolution,
    adapt_to_series,
    adapt_to_sounds,
    adapt_to_tables,
    adapt_to_video,
    layer_names,
    load_pretrained_model,
    predict,
    undo_edit,
)

SIDE = 64


@pytest.fixture(scope="module")
def models() -> Callable[[str], PretrainedModel]:
    built: dict[str, PretrainedModel] = {}

    def give(name: str) -> PretrainedModel:
        if name not in built:
            built[name] = loaded(name, input_shape=(SIDE, SIDE, 3))
        return copy.deepcopy(built[name])

    return give


def batches(model: PretrainedModel, raw: list[Any]) -> Tensor:
    return torch.stack([model.preprocess(one) for one in raw])


@torch.inference_mode()
def outputs_of(model: PretrainedModel, layer: nn.Module, inputs: Tensor) -> Tensor:
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, given, output: seen.append(output.double()))
    with evaluating(model):
        model(inputs)
    handle.remove()
    return seen[0].transpose(0, 1).flatten(1)


def masked_images() -> list[np.ndarray]:
    """Colours of other brightness in each channel, and a mask."""
    noise = np.random.default_rng(0)
    levels = np.array([40, 90, 140])
    images = []
    for _ in range(9):
        colours = np.clip(noise.normal(levels, [10, 30, 50], (80, 80, 3)), 0, 255)
        mask = 255 * (noise.random((80, 80, 1)) < 0.2)
        images.append(np.concatenate([colours, mask], 2).astype(np.uint8))
    return images


def test_images_are_scaled_by_their_own_numbers(models: Callable[[str], PretrainedModel]) -> None:
    model, images = models("mobilenetv2"), masked_images()
    adapt_channels(model, 4, data=images)
    pixels = batches(model, images).transpose(0, 1).flatten(1)
    torch.testing.assert_close(pixels.mean(1), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(pixels.std(1, correction=0), torch.ones(4), atol=1e-4, rtol=0)


def test_what_a_norm_reads_has_its_statistics(models: Callable[[str], PretrainedModel]) -> None:
    model, images = models("mobilenetv2"), masked_images()
    norm = model.trunk.bn1
    with torch.no_grad():
        norm.running_mean.uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
        norm.running_var.uniform_(0.5, 4, generator=torch.Generator().manual_seed(2))
    variance = norm.running_var.double()
    kept = Kept(model)
    unmatched = copy.deepcopy(model)
    adapt_channels(unmatched, 4)
    before = outputs_of(unmatched, unmatched.trunk.conv_stem, batches(unmatched, images))
    assert float((before.var(1, correction=0) / variance - 1).abs().min()) > 0.05
    adapt_channels(model, 4, data=images)
    given = outputs_of(model, model.trunk.conv_stem, batches(model, images))
    torch.testing.assert_close(given.var(1, correction=0), variance, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(given.mean(1), model.trunk.bn1.running_mean.double(), rtol=1e-3, atol=1e-3)
    undo_edit(model)
    kept.check()


def test_without_a_norm_it_gives_what_the_old_layer_gave_for_the_colours(
    models: Callable[[str], PretrainedModel],
) -> None:
    model, images = models("vit-tiny-patch16-224"), masked_images()
    with torch.no_grad():
        model.trunk.patch_embed.proj.bias.uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
    old = copy.deepcopy(model)
    wanted = outputs_of(old, old.trunk.patch_embed.proj, batches(old, [image[..., :3] for image in images]))
    bands = {"mask": {"red": 1.0, "blue": 0.5}, "blue": "blue", "green": "green", "red": "red"}
    images = [image[..., [3, 2, 1, 0]] for image in images]
    adapt_channels(model, 4, bands=bands, data=ListDataset(images))
    given = outputs_of(model, model.trunk.patch_embed.proj, batches(model, images))
    # the colours of `wanted` were resized by PIL in whole levels, and those of `given` as reals
    torch.testing.assert_close(given.mean(1), wanted.mean(1), rtol=0, atol=2e-2)
    torch.testing.assert_close(given.var(1, correction=0), wanted.var(1, correction=0), rtol=2e-2, atol=1e-4)


def test_groups_are_opened() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    model, images = adopt(network.eval()), torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    answers = model(images)
    adapt_channels(model, 4, how=[[0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]], inputs=images)
    torch.testing.assert_close(model(images.flip(1)), answers)
    undo_edit(model)
    assert torch.equal(model(images), answers)


@pytest.mark.filterwarnings("ignore::UserWarning:timm")
def test_windows_of_an_own_network_change() -> None:
    network = timm.create_model(
        "swin_tiny_patch4_window7_224", depths=(1, 1), embed_dim=16, num_heads=(1, 2), img_size=56, num_classes=5
    )
    model, images = adopt(network.eval()), torch.rand(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    kept, answers = Kept(model), model(images)
    assert adapt_resolution(model, 56, inputs=images) is None
    adapt_resolution(model, (64, 96), window_size=8, inputs=images)
    assert model(torch.zeros(1, 3, 64, 96)).shape == (1, 5)
    assert network.layers[0].blocks[0].window_size == (8, 8)
    undo_edit(model)
    kept.check()
    assert torch.equal(model(images), answers)


@torch.inference_mode()
def test_grey_pictures_give_what_their_copies_in_colours_gave(models: Callable[[str], PretrainedModel]) -> None:
    """ViT's mean and deviation are the same in all colours, so that this holds from the picture on."""
    model = models("vit-tiny-patch16-224").double()
    grey = Image.fromarray(uint8(70, 90))
    coloured = model(read(model, grey.convert("RGB")).double())
    model.float()
    adapt_channels(model, 1)
    torch.testing.assert_close(model(read(model, grey)).double(), coloured, rtol=1e-4, atol=1e-5)


@pytest.mark.real_weights
@torch.inference_mode()
def test_real_weights_see_grey_pictures_as_in_colours() -> None:
    model = load_pretrained_model("efficientnet-lite0", input_shape=(96, 96, 3), device="cpu")
    grey = Image.fromarray(uint8(100, 100))
    coloured = model(read(model, grey.convert("RGB")))
    adapt_channels(model, 1)
    torch.testing.assert_close(model(read(model, grey)), coloured, rtol=1e-3, atol=1e-3)


# --- other samples ---------------------------------------------------------------------------------------------------


def write_wave(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def test_a_network_of_images_learns_a_folder_of_sounds(
    models: Callable[[str], PretrainedModel], tmp_path: Path
) -> None:
    noise, times = np.random.default_rng(0), np.arange(8_000) / 16_000
    for number in range(8):
        tone = 0.3 * np.sin(2 * np.pi * (300 if number % 2 else 3_000) * times)
        write_wave(
            tmp_path / "sounds" / ("low" if number % 2 else "high") / f"{number}.wav",
            tone + noise.normal(0, 0.01, 8_000),
        )
    model = models("mobilenetv2")
    adapt_to_sounds(model, seconds=0.5, data=tmp_path / "sounds")
    assert model.preprocess.spec.mean is not None
    tuner = Finetuner(model, num_classes=2, strategy="head", augmented_views=1)
    tuner.fit(tmp_path / "sounds", epochs=2, batch_size=4, run=False)
    assert tuner.model.categories == ("high", "low")
    low = 0.3 * np.sin(2 * np.pi * 290 * times).astype(np.float32)
    assert tuner.predict((low, 16_000)).tolist() == ["low"]


def test_a_video_of_one_image_is_answered_as_that_image(models: Callable[[str], PretrainedModel]) -> None:
    model, image = models("mobilenetv2"), uint8(SIDE, SIDE, 3)
    with torch.inference_mode():
        answer = model(read(model, image))
        for pooling in ("mean", "max", "attention"):
            adapt_to_video(model, 3, pooling=pooling)
            assert "blocks.4" in layer_names(model)
            torch.testing.assert_close(model(read(model, [Image.fromarray(image)] * 5)), answer, rtol=1e-4, atol=1e-5)
            undo_edit(model)


def test_videos_are_fitted_and_predicted(models: Callable[[str], PretrainedModel]) -> None:
    model = models("mobilenetv2")
    adapt_to_video(model, 2)
    videos = [[Image.fromarray(uint8(40, 40, 3) // (1 + 3 * (number % 2)))] * (2 + number) for number in range(6)]
    tuner = Finetuner(model, num_classes=2, strategy="full", layer_learning_rates={"blocks.1": 1e-4})
    tuner.fit((videos, ["bright", "dark"] * 3), epochs=1, batch_size=3, run=False)
    assert len(tuner.predict(videos)) == 6
    assert len(tuner.predict(videos[0])) == 1
    assert len(tuner.predict(uint8(5, 40, 40, 3))) == 1


@pytest.mark.parametrize("tuner", [LoraTuner, AdapterTuner])
def test_tuners_find_their_layers_behind_frames(tuner: Any, models: Callable[[str], PretrainedModel]) -> None:
    model = models("vit-tiny-patch16-224")
    adapt_to_video(model, 2)
    tuned = tuner(model, num_classes=2)
    videos = np.stack([uint8(2 + number, 32, 32, 3)[:2] for number in range(4)])
    tuned.fit((videos, ["a", "b"] * 2), epochs=1, batch_size=4, run=False)
    back, kept = tuned.detach().state_dict(), model.state_dict()
    trunk = {name for name in kept if name.startswith("trunk.")}
    assert {name for name in back if name.startswith("trunk.")} == trunk
    assert all(torch.equal(back[name], kept[name]) for name in trunk)


def test_augmentation_is_one_for_all_frames(models: Callable[[str], PretrainedModel]) -> None:
    model = models("mobilenetv2")
    adapt_to_video(model, 3)
    image = uint8(SIDE, SIDE, 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        one, other = (model.preprocess.for_training()(np.stack([image] * 3)) for _ in range(2))
    assert torch.equal(one[0], one[2])
    assert not torch.equal(one, other)


def test_rows_are_fitted_and_predicted(models: Callable[[str], PretrainedModel]) -> None:
    draw = np.random.default_rng(0)
    rows = [{"x": float(x), "y": None, "kind": "ab"[int(x > 0)]} for x in draw.normal(100, 10, 40)]
    labels = ["large" if row["x"] > 100 else "small" for row in rows]
    model = models("vit-tiny-patch16-224")
    adapt_to_tables(model, {"x": "number", "y": "number", "kind": ["a", "b"]}, data=[{**row, "y": 1.0} for row in rows])
    assert model.preprocess.columns[0].mean == pytest.approx(np.mean([row["x"] for row in rows]))
    values = np.array([model.preprocess(row)["values"].numpy() for row in rows])
    assert values[:, 0].std() == pytest.approx(1, abs=1e-5)
    assert not values[:, 1].any()  # missing: the mean
    tuner = Finetuner(model, num_classes=2, strategy="head")
    tuner.fit((rows, labels), epochs=3, batch_size=8, run=False)
    assert tuner.evaluate((rows, labels))["accuracy"] > 0.8
    assert len(tuner.predict(rows[0])) == len(tuner.predict([120.0, None, "c"])) == 1
    pandas = pytest.importorskip("pandas")
    assert (tuner.predict(pandas.DataFrame(rows)) == tuner.predict(rows)).all()


def test_series_are_fitted_and_predicted(models: Callable[[str], PretrainedModel]) -> None:
    steps, draw = np.arange(64), np.random.default_rng(0)
    series = np.stack([np.sin(steps * (0.2 if number % 2 else 1.5) + draw.random()) for number in range(24)])
    model = models("vit-tiny-patch16-224")
    adapt_to_series(model, channels=1, length=64, patch=8)
    tuner = Finetuner(model, num_classes=2, strategy="full", learning_rate=1e-3)
    tuner.fit((series, ["fast", "slow"] * 12), epochs=4, batch_size=8, run=False)
    assert tuner.evaluate((series, ["fast", "slow"] * 12))["accuracy"] > 0.8
    assert len(tuner.predict(series)) == 24
    assert len(tuner.predict(series[0])) == 1


@pytest.mark.real_weights
def test_a_network_of_texts_reads_rows_and_series() -> None:
    model = load_pretrained_model("all-minilm-l6-v2", device="cpu")
    kept = Kept(model)
    text = model(read(model, "a text"))
    adapt_to_tables(model, {"x": "number", "kind": ["a", "b"]})
    assert model(read(model, {"x": 1, "kind": "a"})).shape == text.shape
    words, places = kept.state["trunk.embeddings.word_embeddings.weight"], "trunk.embeddings.position_embeddings.weight"
    types = kept.state["trunk.embeddings.token_type_embeddings.weight"]
    start = words[101] + kept.state[places][0] + types[0]  # 101 is [CLS]
    assert torch.equal(model.trunk.embeddings.first, start)
    undo_edit(model)
    adapt_to_series(model, channels=2, length=64, patch=8)
    assert torch.equal(model.trunk.embeddings.positions, kept.state[places][1:9])
    assert model(read(model, np.zeros((64, 2)))).shape == text.shape
    undo_edit(model)
    kept.check()
    assert torch.equal(model(read(model, "a text")), text)


def test_series_by_hand() -> None:
    make = PREPROCESSES["series"].from_json
    own = make({"channels": 1, "length": 4, "mean": None, "std": None})
    assert own([1.0, 3.0, float("nan")])["series"].tolist() == [[0, -1, 1, 0]]  # filled in front, missing is the mean
    known = make({"channels": 2, "length": 2, "mean": [1.0, 2.0], "std": [2.0, 1.0]})
    assert known([[9, 9], [3, 1], [1, 2]])["series"].tolist() == [[1, 0], [-1, 0]]  # the last two steps
    assert make(known.to_json()) == known


# --- wrong uses ------------------------------------------------------------------------------------------------------

Wrong = Callable[[PretrainedModel], Any]
RGB = {"red": "red", "green": "green", "blue": "blue"}
ON_IMAGES: dict[str, tuple[Wrong, type[NeurenixError], str]] = {
    "no channels": (lambda m: adapt_channels(m, 0), ConfigurationError, "channels=0"),
    "channels as a text": (lambda m: adapt_channels(m, "4"), ConfigurationError, "channels='4'"),
    "an unknown way": (lambda m: adapt_channels(m, 4, how="summ"), UnknownNameError, "closest: sum"),
    "a band missing": (lambda m: adapt_channels(m, 4, bands=RGB), ConfigurationError, "4 channels and bands names 3"),
    "an unknown band": (lambda m: adapt_channels(m, 4, bands=RGB | {"nir": "rad"}), UnknownNameError, "band 'rad'"),
    "an unknown band with a share": (
        lambda m: adapt_channels(m, 1, bands={"nir": {"infrared": 1.0}}),
        UnknownNameError,
        "from_bands",
    ),
    "old bands miscounted": (
        lambda m: adapt_channels(m, 3, bands=RGB, from_bands=("red", "green")),
        ConfigurationError,
        "reads 3 channels and from_bands names 2",
    ),
    "bands without names": (lambda m: adapt_channels(m, 4, how="bands"), ConfigurationError, "needs them"),
    "two ways at once": (lambda m: adapt_channels(m, 3, how="sum", bands=RGB), ConfigurationError, "how='sum'"),
    "a matrix of another size": (lambda m: adapt_channels(m, 2, how=[[1, 2], [3, 4]]), ConfigurationError, "3 columns"),
    "a matrix that is none": (lambda m: adapt_channels(m, 1, how=[["x", 0, 0]]), ConfigurationError, "matrix"),
    "data of other channels": (
        lambda m: adapt_channels(m, 5, data=[uint8(SIDE, SIDE, 3)]),
        InputMismatchError,
        "5 are expected",
    ),
    "data that are ready": (
        lambda m: adapt_channels(m, 4, data=torch.zeros(2, 4, SIDE, SIDE)),
        InputMismatchError,
        "raw samples",
    ),
    "no size": (lambda m: adapt_resolution(m, (64, 64, 3)), ConfigurationError, "size="),
    "a size of 0": (lambda m: adapt_resolution(m, 0), ConfigurationError, "size=0"),
    "a size between patches": (
        lambda m: adapt_resolution(m, (70, 64)),
        ConfigurationError,
        "do not divide 70 x 64; 64",
    ),
    "patches that do not fit": (lambda m: adapt_resolution(m, 64, patch_size=24), ConfigurationError, "24 x 24"),
    "windows of a network without": (lambda m: adapt_resolution(m, 64, window_size=4), ConfigurationError, "no window"),
    "a sound of no length": (lambda m: adapt_to_sounds(m, seconds=0), ConfigurationError, "seconds=0"),
    "a hop above the window": (lambda m: adapt_to_sounds(m, hop=50), ConfigurationError, "hop=50"),
    "images as sounds": (lambda m: adapt_to_sounds(m, data=torch.zeros(2, 1, 64, 64)), InputMismatchError, "raw"),
    "no frames": (lambda m: adapt_to_video(m, 0), ConfigurationError, "frames=0"),
    "an unknown pooling": (lambda m: adapt_to_video(m, pooling="median"), ConfigurationError, "'attention'"),
    "no columns": (lambda m: adapt_to_tables(m, {}), ConfigurationError, "not empty"),
    "a column of no kind": (lambda m: adapt_to_tables(m, {"age": "real"}), ConfigurationError, "column 'age'"),
    "a category twice": (lambda m: adapt_to_tables(m, {"a": ["x", "x"]}), ConfigurationError, "twice"),
    "rows of other columns": (
        lambda m: adapt_to_tables(m, {"age": "number"}, data=[{"size": 1}]),
        InputMismatchError,
        "row without age",
    ),
    "a word among numbers": (
        lambda m: adapt_to_tables(m, {"age": "number"}, data=[{"age": "old"}]),
        InputMismatchError,
        "'old'",
    ),
    "a length between patches": (
        lambda m: adapt_to_series(m, channels=1, length=100, patch=16),
        ConfigurationError,
        "divides length=100",
    ),
    "series of other channels": (
        lambda m: adapt_to_series(m, channels=3, length=64, data=np.zeros((2, 64, 2))),
        InputMismatchError,
        r"reads \(steps, 3\)",
    ),
    "another's optimizer": (
        lambda m: adapt_channels(m, 1, optimizer=torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1)),
        ConfigurationError,
        "trains no parameter",
    ),
}


@pytest.mark.parametrize("case", ON_IMAGES)
def test_wrong_uses_are_named_and_change_nothing(case: str, models: Callable[[str], PretrainedModel]) -> None:
    use, kind, words = ON_IMAGES[case]
    model = models("vit-tiny-patch16-224")
    kept = Kept(model)
    with pytest.raises(kind, match=words):
        use(model)
    kept.check()
    assert model.edits is None


ON_OTHERS: dict[str, tuple[str, Wrong, type[NeurenixError], str]] = {
    "patches of a network without": (
        "mobilenetv2",
        lambda m: adapt_resolution(m, 64, patch_size=8),
        ConfigurationError,
        "no patch_size",
    ),
    "rows for convolutions": (
        "mobilenetv2",
        lambda m: adapt_to_tables(m, {"a": "number"}),
        EditError,
        "no transformer",
    ),
    "texts of images": ("mobilenetv2", lambda m: adapt_length(m, 600), EditError, "no embeddings of positions"),
    "channels of a detector": ("yolox-nano", lambda m: adapt_channels(m, 4), EditError, "detector"),
    "a detector of sounds": ("yolox-nano", lambda m: adapt_to_sounds(m), EditError, "no network of plain images"),
    "a letterbox between steps": (
        "yolox-nano",
        lambda m: adapt_resolution(m, 100),
        ConfigurationError,
        "multiples of 32",
    ),
    "a mask for a segmenter": ("unet-mobilenet_v2", lambda m: adapt_channels(m, 4), EditError, "1 or 3 channels"),
    "data for a segmenter": (
        "unet-mobilenet_v2",
        lambda m: adapt_channels(m, 1, data=[uint8(64, 64)]),
        EditError,
        "plain images",
    ),
    "channels of a network of sounds": ("panns-cnn6", lambda m: adapt_channels(m, 1), EditError, "reads sounds"),
    "a network of sounds hears": ("panns-cnn6", lambda m: adapt_to_sounds(m), EditError, "reads sounds"),
    "sizes of sounds": ("panns-cnn6", lambda m: adapt_resolution(m, 64), EditError, "reads sounds"),
    "videos of sounds": ("panns-cnn6", lambda m: adapt_to_video(m), EditError, "reads sounds"),
}


@pytest.mark.parametrize("case", ON_OTHERS)
def test_wrong_models_are_named_and_stay(case: str) -> None:
    name, use, kind, words = ON_OTHERS[case]
    model = loaded(name)
    kept = Kept(model)
    with pytest.raises(kind, match=words):
        use(model)
    kept.check()


@pytest.mark.real_weights
def test_a_network_of_texts_is_refused() -> None:
    model = load_pretrained_model("all-minilm-l6-v2", device="cpu")
    kept = Kept(model)
    for use in (
        lambda: adapt_channels(model, 1),
        lambda: adapt_resolution(model, 64),
        lambda: adapt_to_sounds(model),
        lambda: adapt_to_video(model),
    ):
        with pytest.raises(EditError, match="reads texts"):
            use()
    with pytest.raises(EditError, match="positions"):
        adapt_to_series(model, channels=1, length=4096, patch=4)
    for length in (100, 0, "512", 10**9):
        with pytest.raises(ConfigurationError, match="from 256"):
            adapt_length(model, length)
    with pytest.raises(UnknownNameError, match="interpolate"):
        adapt_length(model, 600, how="interpolated")
    assert adapt_length(model, 256) is None
    kept.check()


@pytest.mark.parametrize(
    "use",
    [
        lambda m: adapt_to_sounds(m),
        lambda m: adapt_to_video(m),
        lambda m: adapt_channels(m, 1),
        lambda m: adapt_resolution(m, 96),
        lambda m: adapt_to_series(m, channels=1, length=64),
    ],
)
def test_what_reads_something_else_already_is_not_adapted_twice(
    use: Wrong, models: Callable[[str], PretrainedModel]
) -> None:
    for first in (
        lambda m: adapt_to_sounds(m),
        lambda m: adapt_to_video(m),
        lambda m: adapt_to_tables(m, {"a": "number"}),
    ):
        model = models("vit-tiny-patch16-224")
        first(model)
        if use.__code__.co_names[:1] == ("adapt_to_series",) and model.preprocess.reads in ("sound", "video"):
            continue  # whose pictures come in patches still
        kept = Kept(model)
        with pytest.raises(EditError, match="reads|no transformer"):
            use(model)
        kept.check()


def test_modules_of_ones_own_have_to_be_adopted() -> None:
    with pytest.raises(ConfigurationError, match="adopt"):
        adapt_channels(nn.Conv2d(3, 4, 3), 1)


def test_space_to_depth_is_named() -> None:
    model = adopt(nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2)))
    kept = Kept(model)
    with pytest.raises(EditError, match="reads 12 channels"):
        adapt_channels(model, 1, inputs=torch.zeros(2, 3, 16, 16))
    kept.check()


def test_a_batch_of_other_samples_is_refused(models: Callable[[str], PretrainedModel]) -> None:
    model = models("vit-tiny-patch16-224")
    adapt_to_video(model, 2)
    with pytest.raises(InputMismatchError, match="videos"):
        model.preprocess.check(torch.zeros(2, 3, SIDE, SIDE))
    undo_edit(model)
    adapt_to_sounds(model)
    with pytest.raises(InputMismatchError, match="log-mel"):
        model.preprocess.check(torch.zeros(2, 3, SIDE, SIDE))
    undo_edit(model)
    adapt_to_series(model, channels=1, length=64)
    with pytest.raises(InputMismatchError, match="series"):
        model.preprocess.check(torch.zeros(2, 1, 64))
    undo_edit(model)
    adapt_to_tables(model, {"a": "number"})
    with pytest.raises(InputMismatchError, match="columns a"):
        model.preprocess.check({"values": torch.zeros(2, 2)})


def test_texts_are_no_sounds(models: Callable[[str], PretrainedModel]) -> None:
    model = models("mobilenetv2")
    adapt_to_sounds(model)
    with pytest.raises(InputMismatchError, match="an audio model"):
        Finetuner(model, num_classes=2).fit((["a text", "another"], [0, 1]), run=False)


def test_prepared_by_a_loader_as_by_hand(models: Callable[[str], PretrainedModel]) -> None:
    model = models("mobilenetv2")
    adapt_to_sounds(model)
    loader = DataLoader(prepare(ListDataset([sound(9_000), sound(12_000)]), model.preprocess, False), batch_size=2)
    with torch.inference_mode():
        assert predict(model, sound(9_000)) is not None
        assert torch.equal(loader.first(0).inputs[1], model.preprocess(sound(12_000)))
