"""Sound files: safe decoding to one channel, lists of files, folders of classes."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from ..errors import InputMismatchError, UnreadableSampleError
from ..packages import require
from .class_folders import LookedFor, find_class_files
from .files import ClassFolders, Files
from .manifest import DataManifest, check_regular

SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff", ".au")
_LOOKED_FOR = LookedFor(dataset="AudioFolder", files="sounds", file="sound", extensions=SOUNDS)
MAX_SECONDS = 3600.0
HIGHEST_RATE = 768_000


def read_audio(
    path: str | os.PathLike[str],
    sample_rate: int | None = None,
    *,
    max_seconds: float = MAX_SECONDS,
    manifest: DataManifest | None = None,
) -> tuple[Tensor, int]:
    """A sound file as one channel (samples,) float32 in [-1, 1], and its rate in hertz.

    sample_rate: brought to this one; None keeps the file's. Channels are averaged.
    max_seconds: longer files are refused before they are decoded, so that a small hostile one cannot fill the memory.
    manifest: what the file has to be; the bytes that are compared are those that are decoded.
    Raises UnreadableSampleError naming the file.
    """
    soundfile = require("soundfile", purpose="reading sound files")
    try:
        check_regular(path)
        source = os.fspath(path) if manifest is None else io.BytesIO(manifest.read(path))
        with soundfile.SoundFile(source) as file:
            if file.samplerate > HIGHEST_RATE or file.frames > max_seconds * file.samplerate:
                seconds = file.frames / file.samplerate
                raise UnreadableSampleError(
                    f"{path} says it is {seconds:,.0f} seconds long at {file.samplerate:,} hertz; more than "
                    f"{max_seconds:,.0f} seconds are not decoded. Cut it, or raise max_seconds."
                )
            samples, rate = file.read(dtype="float32", always_2d=True), int(file.samplerate)
    except Exception as error:  # a decoder may raise anything at damaged bytes, and no code of the user's runs here
        if isinstance(error, UnreadableSampleError) and str(path) in str(error):
            raise
        reason = (
            "no such file" if isinstance(error, FileNotFoundError) else str(error).rstrip(".") or type(error).__name__
        )
        raise UnreadableSampleError(f"{path} cannot be read as a sound: {reason}") from error
    if not len(samples):
        raise UnreadableSampleError(f"{path} holds no samples.")
    return as_mono(samples.T, rate, sample_rate, str(path))


def as_mono(samples: Any, rate: int, sample_rate: int | None, name: str = "this sound") -> tuple[Tensor, int]:
    """(samples,) or (channels, samples) of any number type as one channel float32, and its rate.

    Whole numbers are scaled by their type's range, as sound files scale them. sample_rate: brought to this one.
    Raises InputMismatchError for what is no sound: more channels than samples, NaN, int64, values far from [-1, 1].
    """
    array = np.asarray(samples.detach().cpu() if isinstance(samples, Tensor) else samples)
    if array.ndim not in (1, 2) or not array.size or (array.ndim == 2 and array.shape[0] > array.shape[1]):
        raise InputMismatchError(
            f"{name} has shape {array.shape}; a sound is (samples,) or (channels, samples), with samples in it."
        )
    if isinstance(rate, bool) or not isinstance(rate, (int, np.integer)) or not 1000 <= rate <= HIGHEST_RATE:
        raise InputMismatchError(f"{name} came with the rate {rate!r}; it is in hertz, 1,000 to {HIGHEST_RATE:,}.")
    array = _scaled(array, name)
    mono = array.mean(0) if array.ndim == 2 else array
    wanted = int(rate) if sample_rate is None else sample_rate
    return torch.from_numpy(np.ascontiguousarray(resampled(mono, int(rate), wanted), dtype=np.float32)), wanted


def resampled(samples: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """(samples,) at `rate` -> (samples · sample_rate / rate,), by soxr's band-limited interpolation."""
    if rate == sample_rate:
        return samples
    found: np.ndarray = require("soxr", purpose="bringing sounds to another rate").resample(samples, rate, sample_rate)
    return found


def milliseconds(path: str | os.PathLike[str]) -> int:
    """How long a sound file says it is, at least 1; 1 too for what cannot be read. Only its header is looked at."""
    try:
        check_regular(path)
        header = require("soundfile", purpose="reading sound files").info(os.fspath(path))
        return max(1, 1000 * int(header.frames) // int(header.samplerate))
    except Exception:  # a decoder may raise anything; reading the file itself says what is wrong with it
        return 1


def _scaled(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype.kind == "u" and array.dtype.itemsize == 1:
        return (array.astype(np.float32) - 128) / 128
    if array.dtype == np.int64:  # no sound file's type: scaled by its range, ordinary samples would all be silence
        raise InputMismatchError(
            f"{name} holds int64; samples are real numbers in [-1, 1], or whole ones as int16 or int32."
        )
    if array.dtype.kind == "i":
        return array.astype(np.float32) / -float(np.iinfo(array.dtype).min)
    if array.dtype.kind != "f":
        raise InputMismatchError(f"{name} holds {array.dtype}; samples are real or whole numbers.")
    if not np.isfinite(array).all():
        raise InputMismatchError(f"{name} holds NaN or infinity.")
    loudest = float(np.abs(array).max())
    if loudest > 64:
        raise InputMismatchError(
            f"{name} goes up to {loudest:,.0f}; real samples lie in [-1, 1]. Give whole numbers as int16, or divide."
        )
    return array.astype(np.float32)


@final
class AudioFiles(Files):
    """Sounds given by their paths, with or without targets. `dataset[i]` is ((samples, rate), target), samples (n,).

    targets: class names, class numbers, reals, or several values per file; None for unlabelled data.
    classes: names in the order of their numbers; by default the sorted names in `targets`.
    verify: a file whose bytes are not those that write_data_manifest saw is unreadable. Found in the folder of all
        files or above; or a DataManifest.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        targets: Any = None,
        *,
        classes: Sequence[str] | None = None,
        on_bad: str = "raise",
        max_seconds: float = MAX_SECONDS,
        verify: bool | DataManifest = False,
    ) -> None:
        super().__init__(paths, targets, classes, on_bad, verify)
        self.max_seconds = max_seconds

    @cached_property
    def lengths(self) -> np.ndarray:
        """(n,) milliseconds that each file says it has, looked up when first asked for."""
        return np.asarray([milliseconds(path) for path in self.paths], dtype=np.int64)

    def _read(self, path: str) -> tuple[Tensor, int]:
        return read_audio(path, max_seconds=self.max_seconds, manifest=self._manifest)


@final
class AudioFolder(ClassFolders):
    """One folder per class, sound files anywhere below it. `dataset[i]` is ((samples, rate), class number).

    root: the folder that holds the class folders; classes are their names, sorted. Hidden files are ignored.
    on_bad: "raise" stops at a file that cannot be decoded; "skip" lets the loader leave it out, count and list it.
    extensions: which files are sounds, by the end of their names, in any case.
    verify: compare each file with what write_data_manifest(root) saw.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        on_bad: str = "raise",
        extensions: Sequence[str] = SOUNDS,
        max_seconds: float = MAX_SECONDS,
        verify: bool = False,
    ) -> None:
        manifest = DataManifest.of(root) if verify else None
        classes, paths, targets = find_class_files(Path(root), _LOOKED_FOR.ending(extensions), manifest)
        files = AudioFiles(
            paths, targets, classes=classes, on_bad=on_bad, max_seconds=max_seconds, verify=manifest or False
        )
        super().__init__(root, files)
        self._sounds = files

    @property
    def lengths(self) -> np.ndarray:
        """(n,) milliseconds that each file says it has."""
        return self._sounds.lengths
