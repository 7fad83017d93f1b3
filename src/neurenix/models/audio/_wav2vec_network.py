"""Wav2Vec 2.0's network on the library's parts: waveforms in, one vector for each 20 ms out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from ...audio.spectrogram import first_places
from ._wav2vec_sizes import Wav2Vec2Sizes
from ._waveforms import waveform_of


@dataclass(frozen=True)
class SpanMasking:
    """Which spans of a row are masked. Baevski et al., section 3.1; Park et al., SpecAugment, Interspeech 2019.

    share: of the places that would be masked if no spans met. length: of a span. least: spans in each row.
    """

    share: float
    length: int
    least: int

    def draw(self, real: list[int], places: int) -> Tensor:
        """(rows, places) bool, by torch's generator. real: places of each row that may be masked.

        Rows that are shorter than a span stay whole.
        """
        masked = torch.zeros(len(real), places, dtype=torch.bool)
        for row, count in enumerate(real):
            wanted = int(self.share * count / self.length + torch.rand(()).item())
            spans = min(max(wanted, self.least), count // self.length)
            starts = torch.randperm(max(count - self.length + 1, 0))[:spans]
            masked[row, (starts[:, None] + torch.arange(self.length)).flatten()] = True
        return masked


@final
class Wav2Vec2Trunk(nn.Module):
    """The library's convolutions and encoder under the library's names.

    Inputs are a mapping of waveform (n, samples) and attention_mask (n, samples), 1 where a sample is real, or the
    waveform alone; features are (n, frames, d), the first of the first 400 samples and one more every 320.

    As published, networks with a group norm read silence where sounds are filled up, so that the other sounds of a
    batch can change the last digits of a sound's features, and those with layer norms read the mask.

    In training, spans of frames are replaced by a learned vector, and spans of features by 0, as config.json says.
    """

    def __init__(self, network: Any, sizes: Wav2Vec2Sizes) -> None:
        super().__init__()
        self.feature_extractor: Any = network.feature_extractor
        self.feature_projection: nn.Module = network.feature_projection
        self.masked_spec_embed: nn.Parameter | None = getattr(network, "masked_spec_embed", None)
        self.encoder: Any = network.encoder
        self.frames = sizes.frames
        self.reads_mask = sizes.feat_extract_norm == "layer"
        on = sizes.apply_spec_augment
        self.time_masking, self.feature_masking = (
            SpanMasking(share, length, least) if on and share > 0 else None
            for share, length, least in (
                (sizes.mask_time_prob, sizes.mask_time_length, sizes.mask_time_min_masks),
                (sizes.mask_feature_prob, sizes.mask_feature_length, sizes.mask_feature_min_masks),
            )
        )
        # The library asks for gradients of the waveform, for checkpoints of activations, also where all is frozen.
        self.feature_extractor._requires_grad = False
        if sizes.do_stable_layer_norm:  # then it comes last, and names are from input to output
            norm = self.encoder.layer_norm
            del self.encoder.layer_norm
            self.encoder.layer_norm = norm

    def forward(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        """See the class. Raises InputMismatchError for what is no waveform, or one that is too short."""
        waveform = waveform_of(inputs, self.frames.shortest)
        found, _ = self.feature_projection(self.feature_extractor(waveform).transpose(1, 2))
        hidden = cast(Tensor, found)
        real = self.frames(inputs)
        mask = None if real is None else first_places(real, hidden.shape[1])
        if self.training:
            hidden = self._masked(hidden, real)
        if not self.reads_mask or mask is None:
            return cast(Tensor, self.encoder(hidden).last_hidden_state)
        hidden = hidden.masked_fill(~mask.unsqueeze(2), 0)
        return cast(Tensor, self.encoder(hidden, attention_mask=mask).last_hidden_state)

    def feature_mask(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor | None:
        """(n, frames), 1 where a frame is real; None where all are."""
        real = self.frames(inputs)
        if real is None:
            return None
        samples = torch.tensor(waveform_of(inputs, self.frames.shortest).shape[1])
        return first_places(real, int(self.frames.of(samples))).long()

    def _masked(self, hidden: Tensor, real: Tensor | None) -> Tensor:
        """(n, frames, d) with what training hides."""
        rows, frames, width = hidden.shape
        if self.time_masking is not None and self.masked_spec_embed is not None:
            lengths = [frames] * rows if real is None else real.clamp(max=frames).tolist()
            masked = self.time_masking.draw(lengths, frames).to(hidden.device)
            hidden = torch.where(masked.unsqueeze(2), self.masked_spec_embed.to(hidden.dtype), hidden)
        if self.feature_masking is not None:
            hidden = hidden.masked_fill(self.feature_masking.draw([width] * rows, width).to(hidden.device)[:, None], 0)
        return hidden
