"""Sounds for a network of images: as pictures of their log-mel spectrograms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from ...audio import MelImageInput, MelImagePreprocess
from ...models import PretrainedModel
from ...vision.channels import usual_map
from ..surgery._changes import Changes
from ..surgery._edit import EDITS, InputEdit, Trial, perform
from ..surgery._trial import example_inputs
from ._images import channels_read, check_images, check_is_model, stem_of
from ._stem_statistics import Moments, batches_of
from .channels import AdaptChannels, matched_to


def adapt_to_sounds(
    model: PretrainedModel,
    *,
    sample_rate: int = 16_000,
    seconds: float = 1.0,
    mels: int = 64,
    window: float = 25.0,
    hop: float = 10.0,
    data: Any = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> dict[str, Any]:
    """Make a network of images hear: it reads pictures of log-mel spectrograms; gives the edit's record.

    The picture is grey and as large as the images were, time to the right, in decibels down to 80 below its loudest,
    and the filters of the first layer are added up over the colours (Gong et al., AST, Interspeech 2021, section 2.2,
    do so for a vision transformer). `Finetuner(model).fit("folder of sounds")` works from then on. The model is changed
    in place; undo_edit takes it back.

    Args:
        model: of plain images, from load_pretrained_model.
        sample_rate: that sounds are brought to, in hertz.
        seconds: that are read of a sound; shorter ones are filled up with silence.
        mels: bands of Slaney's scale, from 0 Hz to half the sample rate.
        window, hop: of the Fourier transform, in milliseconds.
        data: sounds, or a dataset of them, of which up to 512 are looked at: pictures are scaled by their mean and
            deviation, and the first layer is matched to them as adapt_channels does it. None scales each picture by its
            own.
        optimizer: trains the model, and shall train the new filters.

    Raises:
        EditError: the model reads no plain images; it is as it was. ConfigurationError: an argument cannot work.
    """
    model = check_is_model(model)
    check_images(model, classifies=True)
    spec = MelImageInput(
        size=cast(Any, model.preprocess).spec.size,
        sample_rate=sample_rate,
        seconds=seconds,
        mels=mels,
        window=window,
        hop=hop,
    )
    trial = Trial.of(model)
    stem = stem_of(model, trial.before)
    old = channels_read(model, stem, trial.inputs)
    channels = AdaptChannels(layer=stem, matrix=usual_map(1, old).tolist(), mean=None, std=None)
    if data is not None:
        spec, channels = _measured(trial, spec, channels, data, old)
    return perform(
        trial,
        AdaptToSounds(picture={**asdict(spec), "size": list(spec.size)}, channels=asdict(channels)),
        optimizer=optimizer,
    )


@final
@EDITS.register("adapt_to_sounds")
@dataclass(frozen=True, kw_only=True)
class AdaptToSounds(InputEdit):
    """picture: the arguments of a MelImageInput. channels: those of AdaptChannels."""

    picture: Mapping[str, Any]
    channels: Mapping[str, Any]

    def apply(self, model: nn.Module, changes: Changes) -> None:
        """See Edit."""
        AdaptChannels(**self.channels).apply(model, changes)
        spec = MelImageInput(**{**self.picture, "size": tuple(self.picture["size"])})
        changes.set(model, "preprocess", MelImagePreprocess(spec))

    def describe(self) -> str:
        """See Edit."""
        return "adapting to sounds"

    def inputs_after(self, model: nn.Module, inputs: Any) -> Any:
        """See InputEdit."""
        return example_inputs(model)


def _measured(
    trial: Trial, spec: MelImageInput, channels: AdaptChannels, data: Any, old: int
) -> tuple[MelImageInput, AdaptChannels]:
    """The scaling of these sounds' decibels, and the first layer matched to it."""
    batches = batches_of(data, MelImagePreprocess(replace(spec, mean=0.0, std=1.0)))
    decibels = Moments()
    for batch in batches.batches(0):
        decibels.add(cast(Tensor, batch.inputs))
    mean, std = float(decibels.mean), max(float(decibels.variance.sqrt()), 1e-3)
    matched = matched_to(
        trial,
        channels,
        batches,
        made=lambda pictures: (pictures - mean) / std,
        reference=lambda pictures: ((pictures - mean) / std).expand(-1, old, -1, -1),
    )
    return replace(spec, mean=mean, std=std), matched
