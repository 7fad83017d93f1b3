"""EfficientNet-Lite0's published ImageNet weights name what is on well-known photographs.

The expected classes and probabilities were measured once with timm's own network and transforms.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from neurenix.models import PretrainedModel
from neurenix.transfer import load_pretrained_model, predict
from neurenix.vision import ImageInput, ImagePreprocess

pytestmark = pytest.mark.real_weights


@pytest.fixture(scope="module")
def model() -> PretrainedModel:
    return load_pretrained_model("efficientnet-lite0", device="cpu")


def photograph(name: str) -> Image.Image:
    from skimage import data
    from sklearn.datasets import load_sample_image

    if name in ("china.jpg", "flower.jpg"):
        return Image.fromarray(load_sample_image(name))
    picture = data.stereo_motorcycle()[1] if name == "motorcycle" else getattr(data, name)()
    return Image.fromarray(picture).convert("RGB")


@torch.inference_mode()
def probabilities(network: Any, preprocess: ImagePreprocess, name: str) -> Tensor:
    return network(preprocess(photograph(name))[None]).softmax(-1)[0]


def prefixed(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}


def best(model: PretrainedModel, values: Tensor) -> str:
    return model.categories[int(values.argmax())]


def test_a_model_as_it_was_loaded_answers_with_names(model: PretrainedModel) -> None:
    assert predict(model, [photograph("coffee"), photograph("china.jpg")]).tolist() == ["espresso", "palace"]
    assert predict(model, photograph("camera")).tolist() == ["tripod"]


@pytest.mark.parametrize(
    ("photo", "answer", "probability"),
    [
        ("coffee", "espresso", 0.951),
        ("camera", "tripod", 0.939),
        ("motorcycle", "moped", 0.571),
        ("china.jpg", "palace", 0.316),
        ("flower.jpg", "daisy", 0.323),
    ],
)
def test_answers(model: PretrainedModel, photo: str, answer: str, probability: float) -> None:
    values = probabilities(model, model.preprocess, photo)
    assert best(model, values) == answer
    assert float(values.max()) == pytest.approx(probability, abs=0.02)


def test_chelsea_is_a_cat(model: PretrainedModel) -> None:
    values = probabilities(model, model.preprocess, "chelsea")
    cats = [model.categories.index(name) for name in ("tabby", "tiger cat", "Egyptian cat")]
    assert int(values.argmax()) in cats
    assert float(values[cats].sum()) == pytest.approx(0.91, abs=0.02)


def test_all_of_the_model_is_pretrained(model: PretrainedModel) -> None:
    assert {fate.fate for fate in model.load_report.tensors} == {"matched"}
    assert model.weights_info.licence == "apache-2.0"


def test_imagenet_mean_would_be_wrong(model: PretrainedModel) -> None:
    """These weights want mean = std = 0.5; with ImageNet's usual numbers the daisy becomes a lampshade."""
    values = probabilities(model, ImagePreprocess(ImageInput()), "flower.jpg")
    assert best(model, values) == "lampshade"


def test_symmetric_padding_would_be_worse(model: PretrainedModel) -> None:
    """timm's plain efficientnet_lite0 takes the same tensors and pads otherwise: the daisy loses much."""
    import timm

    network = timm.create_model("efficientnet_lite0", pretrained=False).eval()
    tensors = {**prefixed("", model.trunk), **prefixed("classifier.", model.head)}
    network.load_state_dict(tensors)
    wrong = probabilities(network, model.preprocess, "flower.jpg")
    right = probabilities(model, model.preprocess, "flower.jpg")
    daisy = model.categories.index("daisy")
    assert float(wrong[daisy]) < 0.2 < 0.3 < float(right[daisy])
