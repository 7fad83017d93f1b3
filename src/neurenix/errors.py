"""Every error and warning a user can meet.

A message says what came, what was possible and what to do. Each class also derives from the builtin that a
caller would guess (`ValueError`, `LookupError`, `ImportError`), so ordinary `except` clauses work.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NeurenixError(Exception):
    """Root of all errors raised on purpose by neurenix."""


class UnknownNameError(NeurenixError, LookupError):
    """A model, layer, metric, optimizer… of that name does not exist; the message lists the nearest ones."""

    def __init__(self, kind: str, name: object, known: Iterable[str], *, hint: str = "") -> None:
        self.kind, self.name, self.known = kind, name, tuple(known)
        super().__init__(_unknown_name(kind, name, self.known, hint))


class ConfigurationError(NeurenixError, ValueError):
    """An argument has a value that cannot work, alone or together with another one."""


class MissingPackageError(NeurenixError, ImportError):
    """An optional package is not installed; the message says which `pip install` brings it."""


class WeightsError(NeurenixError):
    """Root of what can go wrong with pretrained weights."""


class WeightsNotFoundError(WeightsError, FileNotFoundError):
    """Weights could not be reached; the message says what was sought, where, and how to provide it."""


class WeightsMismatchError(WeightsError, ValueError):
    """A weights file does not fit the architecture: too little of the model would be pretrained."""


class DamagedFileError(WeightsError, ValueError):
    """A file's content is not what its hash or its format promises."""


class UnsafeFileError(WeightsError, ValueError):
    """A file would have to run code to be read, or points outside its folder; it is refused."""


class LicenceError(WeightsError):
    """The weights' licence forbids a use that was not explicitly accepted."""


class DataError(NeurenixError):
    """Root of what can go wrong with a user's data."""


class EmptyDatasetError(DataError, ValueError):
    """No samples were found where samples were expected."""


class UnreadableSampleError(DataError, ValueError):
    """One sample (a file, a row) cannot be read; the message names it."""


class WorkerLostError(UnreadableSampleError):
    """A data worker died or hung at a sample.

    what: "died" or "delivered nothing for … s". indices: the places of the samples that may have been the reason.
    """

    def __init__(self, message: str, what: str, indices: Iterable[int]) -> None:
        self.what, self.indices = what, tuple(indices)
        super().__init__(message)


class DataManifestError(DataError, ValueError):
    """The manifest of a data folder is missing or cannot be read; the message says how to write it."""


class TooManyBadSamplesError(DataError, ValueError):
    """More samples were unreadable than the caller allowed."""


class InputMismatchError(DataError, ValueError):
    """Inputs do not fit what the weights were trained on (range, channels, layout, kind)."""


class LabelMismatchError(DataError, ValueError):
    """Labels do not fit the head: wrong count, wrong names, wrong kind."""


class TextTooLongError(DataError, ValueError):
    """A text has more tokens than the model can read and truncation was not allowed."""


class TrainingError(NeurenixError, RuntimeError):
    """Root of what can go wrong while training."""


class NonFiniteError(TrainingError, ArithmeticError):
    """A loss, gradient or metric became NaN or infinite; weights are those from before the step."""


class OutOfMemoryError(TrainingError, MemoryError):
    """Even one sample at a time does not fit into memory; the message says what was tried."""


class ProcessLostError(TrainingError, ConnectionError):
    """Another process of a distributed run is gone; the message says how to go on."""


class RunError(NeurenixError):
    """Root of what can go wrong with the folder of a run."""


class RunBusyError(RunError, BlockingIOError):
    """Another live process trains in this run folder."""


class ResumeError(RunError, ValueError):
    """A run cannot go on as asked: another job, nothing to resume, or not with the same bits (strict=True)."""


class DiskFullError(NeurenixError, OSError):
    """A file could not be written whole; the file that was there before is untouched."""

    def __str__(self) -> str:
        return str(self.strerror or super().__str__())


class InvariantError(TrainingError):
    """Something frozen moved, or something trainable is not in the optimizer."""


class EditError(NeurenixError, ValueError):
    """A change to a model's layers would not work; the message says where, and the model is as it was."""


class MergeError(NeurenixError):
    """A merged model would not give what the tuned one gives."""


class NeurenixWarning(UserWarning):
    """Root of all warnings issued by neurenix."""


class WeightsWarning(NeurenixWarning):
    """Loaded weights can hardly be meant as they are: some hold NaN or infinity; the message names them."""


class InputMismatchWarning(NeurenixWarning):
    """Inputs look unlike what the weights were trained on; the message names the fix."""


class SkippedSamplesWarning(NeurenixWarning):
    """Some samples could not be read and were left out; the message counts and names them."""


class TruncatedTextWarning(NeurenixWarning):
    """Some texts were longer than `max_length` and lost their end."""


class NonBitExactResumeWarning(NeurenixWarning):
    """A run goes on where something is different that changes the last bits of results; the message names it."""


class DamagedCheckpointWarning(NeurenixWarning):
    """A checkpoint is not what was written; an earlier one is used, and the message names both."""


class SaveFailedWarning(NeurenixWarning):
    """A checkpoint could not be written; training goes on and the previous one stays."""


class TrackerFailedWarning(NeurenixWarning):
    """An experiment tracker took no numbers; training goes on and they are offered again after the next epoch."""


class SmallerBatchWarning(NeurenixWarning):
    """A batch did not fit into memory and is computed in parts, to the gradient of the whole batch.

    But for batch norms in training mode, whose statistics are those of a part.
    """


class UnusedParameterWarning(NeurenixWarning):
    """A trainable parameter did not move during training: the loss does not depend on it."""


class NotGradualWarning(NeurenixWarning):
    """What lies between source and target is no gradual way; the message says where it breaks off."""


class NegativeTransferWarning(NeurenixWarning):
    """Adapting to the target probably made the model worse there; the message says by what signs."""


def nearest_names(name: object, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names closest to `name`, best first, compared without case, '-', '_' and spaces."""
    by_plain = {plain_name(candidate): candidate for candidate in known}
    close = difflib.get_close_matches(plain_name(str(name)), list(by_plain), n=count, cutoff=0.5)
    return [by_plain[plain] for plain in close]


def plain_name(name: str) -> str:
    """`EfficientNet-B7` and `efficientnet_b7` name the same thing: lower case without '-', '_', ' '."""
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


def _unknown_name(kind: str, name: object, known: tuple[str, ...], hint: str) -> str:
    close = nearest_names(name, known)
    if close:
        choice = f"closest: {', '.join(close)}"
    elif len(known) <= 30:
        choice = f"known: {', '.join(sorted(known)) or 'none'}"
    else:
        choice = f"{len(known)} are known, none of them similar"
    return f"There is no {kind} {name!r}; {choice}." + (f" {hint}" if hint else "")
