"""Every tuner on the families: it starts as the base model, or says why there is no place for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from neurenix.errors import ConfigurationError
from neurenix.models import PretrainedModel
from neurenix.models.audio.deepspeech2 import DeepSpeechSizes, new_deepspeech2
from neurenix.transfer import load_pretrained_model
from neurenix.transfer.tuners import TUNERS

RANDOM = torch.Generator().manual_seed(0)
SIZE = torch.tensor([[64, 64]])
PICTURE = {"images": torch.rand(1, 3, 64, 64, generator=RANDOM), "image_sizes": SIZE, "original_sizes": SIZE}
WAVEFORM = torch.randn(2, 32_000, generator=RANDOM) * 0.1
SOUND = {"waveform": WAVEFORM, "attention_mask": (torch.arange(32_000) < torch.tensor([[32_000], [20_000]])).long()}
BLOCKLESS = {"adapter", "ia3", "prompt"}
CONVOLUTIONS = {"ia3", "prompt"}  # they scale and extend what transformers' blocks have
NORMLESS = {"norm"}  # or their norms are frozen for good, as detectors of torchvision have them

# name -> inputs, tuners without a place
FAMILIES: dict[str, tuple[Any, set[str]]] = {
    "unet-mobilenet_v2": (PICTURE, CONVOLUTIONS),
    # its convolutions pad by themselves, in classes that peft cannot make anew
    "unet-efficientnet-b0": (PICTURE, CONVOLUTIONS | {"lora"}),
    "unet-brain-mri": (PICTURE, CONVOLUTIONS),
    "deeplabv3_mobilenet_v3_large": (PICTURE, CONVOLUTIONS),
    "deeplabv3plus-mobilenet_v2": (PICTURE, CONVOLUTIONS),
    "craft": (PICTURE, CONVOLUTIONS),
    "yolox-nano": (PICTURE, CONVOLUTIONS),
    "yolos-tiny": (PICTURE, set()),
    "fasterrcnn_mobilenet_v3_large_320_fpn": (PICTURE, CONVOLUTIONS | NORMLESS),
    "panns-cnn6": (SOUND, CONVOLUTIONS),
    "voice-encoder": (SOUND, BLOCKLESS | NORMLESS),
    "deepspeech2": (SOUND, CONVOLUTIONS),
}


def model_of(name: str) -> PretrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name == "deepspeech2":
            return new_deepspeech2(DeepSpeechSizes(hidden=16, layers=2))
        return load_pretrained_model(name, weights=None, device="cpu")


def deepest(features: Any) -> Tensor:
    return features[-1] if isinstance(features, (tuple, list)) else features


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_tuners_start_as_the_base_or_are_refused(family: str) -> None:
    inputs, without = FAMILIES[family]
    model = model_of(family)
    wanted = deepest(model.features(inputs))
    refused = set()
    for name, tuner_class in TUNERS.items():
        try:
            tuner = tuner_class(model, num_classes=3)
        except ConfigurationError:
            refused.add(name)
            continue
        found = deepest(tuner.model.eval().features(inputs))
        if name == "prompt":  # whose tokens the others read from the start
            assert found.shape == wanted.shape
            continue
        scale = wanted.abs().max().clamp(min=1e-6)
        assert float((found - wanted).abs().max() / scale) < (0.05 if name == "adapter" else 1e-4), name
    assert refused == without
