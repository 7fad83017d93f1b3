"""Sound files: safe decoding."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np

from ..errors import UnreadableSampleError
from ..packages import require
from .manifest import DataManifest, check_regular

EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")
FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3")
MAX_VALUES = 100_000_000  # samples times channels: 400 MB once decoded, 17 minutes of stereo at 48 kHz


def read_audio(
    path: str | os.PathLike[str], *, max_values: int = MAX_VALUES, manifest: DataManifest | None = None
) -> tuple[np.ndarray, int]:
    """(samples, rate) of a sound file: float32 (frames,) or (frames, channels) in [-1, 1], and frames per second.

    Only the formats of FORMATS are decoded, by the file's content, and only up to `max_values` samples of all channels,
    so that a small hostile file cannot fill the memory. manifest: what the file has to be; the bytes that are compared
    are those that are decoded.
    Raises UnreadableSampleError naming the file: for damage, for an empty file, for NaN or infinity.
    """
    require("soundfile", purpose="reading sound files")
    try:
        check_regular(path)
        source = open(path, "rb") if manifest is None else io.BytesIO(manifest.read(path))
        with source:
            return _decoded(source, path, max_values)
    except Exception as error:  # a decoder may raise anything at damaged bytes, and no code of the user's runs here
        if isinstance(error, UnreadableSampleError) and str(path) in str(error):
            raise
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error) or type(error).__name__
        raise UnreadableSampleError(f"{path} cannot be read as a sound: {reason}") from error


def _decoded(source: Any, path: str | os.PathLike[str], max_values: int) -> tuple[np.ndarray, int]:
    import soundfile

    with soundfile.SoundFile(source) as sound:
        if sound.format not in FORMATS:
            raise UnreadableSampleError(f"{path} is a {sound.format} file; read are {', '.join(FORMATS)}.")
        if sound.frames * sound.channels > max_values:
            raise UnreadableSampleError(
                f"{path} has {sound.frames} samples in {sound.channels} channels; more than {max_values} are not "
                "decoded. Cut it into shorter files, or raise max_values."
            )
        samples, rate = sound.read(dtype="float32"), int(sound.samplerate)
    if not len(samples):
        raise UnreadableSampleError(f"{path} holds no samples; the file is empty.")
    if not np.isfinite(samples).all():
        raise UnreadableSampleError(f"{path} holds NaN or infinite samples; write the file again.")
    return samples, rate
