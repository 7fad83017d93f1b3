"""What a trunk that reads waveforms is given, opened and checked."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ...audio.spectrogram import real_lengths
from ...errors import InputMismatchError


def waveform_of(inputs: Tensor | Mapping[str, Tensor], shortest: int = 1) -> Tensor:
    """The waveforms (n, samples) of a batch alone; see opened."""
    return opened(inputs, shortest)[0]


def opened(inputs: Tensor | Mapping[str, Tensor], shortest: int) -> tuple[Tensor, Tensor | None]:
    """(waveforms (n, samples), samples (n,) of each that are real, or None where all are) of a batch.

    inputs: {"waveform": (n, samples), "attention_mask": (n, samples)}, or the waveforms alone.
    shortest: samples that the network needs. Raises InputMismatchError.
    """
    waveforms = inputs.get("waveform") if isinstance(inputs, Mapping) else inputs
    if not isinstance(waveforms, Tensor) or waveforms.ndim != 2 or not waveforms.is_floating_point():
        raise InputMismatchError(
            f"this model reads waveforms (n, samples) of real numbers, and {_kind(waveforms)} came; model.preprocess "
            "makes them from sounds."
        )
    if waveforms.shape[1] < shortest:
        raise InputMismatchError(
            f"the waveforms have {waveforms.shape[1]} samples and the network needs {shortest}; model.preprocess fills "
            "them up with silence."
        )
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    return waveforms, None if mask is None else real_lengths(mask, shortest)


def _kind(waveforms: object) -> str:
    if isinstance(waveforms, Tensor):
        return f"a tensor {tuple(waveforms.shape)} {waveforms.dtype}"
    return "none" if waveforms is None else f"a {type(waveforms).__name__}"
