"""deepspeech.pytorch's checkpoints: what of them is needed, and the sizes that their tensors tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from ...audio import Alphabet
from ...errors import ConfigurationError, WeightsMismatchError
from .._records import StateDict
from ..sources import Noted, load_with_stand_ins
from ._deepspeech_network import HOP, SAMPLE_RATE, WINDOW, DeepSpeechSizes

BLANK = "_"
_KINDS = {4: "lstm", 3: "gru", 1: "rnn"}  # gates, whose weights lie one below the other
_LAYER = re.compile(r"trunk\.rnns\.(\d+)\.rnn\.weight_hh_l0")
_SPECTROGRAM = {
    "sample_rate": SAMPLE_RATE,
    "window_size": WINDOW / SAMPLE_RATE,
    "window_stride": HOP / SAMPLE_RATE,
    "window": "hamming",
}
# what Lightning's files of version 3 name beside tensors: settings, kinds of layers, what omegaconf notes about itself
_PACKAGES = ("omegaconf.", "deepspeech_pytorch.", "pytorch_lightning.", "typing.", "torch.nn.modules.rnn.")
_NAMES = {f"builtins.{kind}" for kind in ("dict", "list", "tuple", "int", "float", "str", "bool", "object")}


def read_deepspeech(path: Path) -> StateDict:
    """The tensors of a file under their published names, with its symbols as `head.vocabulary`.

    Raises UnsafeFileError for what names other things than such files do, DamagedFileError, and WeightsMismatchError
    for files without a state dict and for networks that hear other spectrograms.
    """
    return cast(StateDict, load_with_stand_ins(path, _stand_in, opened=partial(_opened, path)))


def _opened(path: Path, content: Any) -> StateDict:
    entries: Mapping[Any, Any] = content if isinstance(content, Mapping) else {}
    inner = entries.get("state_dict", entries)
    state = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)} if _is_map(inner) else {}
    if not state:
        raise WeightsMismatchError(
            f"{path} holds no named tensors under 'state_dict', as deepspeech.pytorch's files do."
        )
    settings = entries.get("hyper_parameters", entries)
    settings = settings if _is_map(settings) else {}
    _check_spectrogram(path, _values(settings.get("spect_cfg", settings.get("audio_conf"))))
    labels = settings.get("labels")
    if labels is not None:
        state["head.vocabulary"] = _alphabet(path, labels).to_tensor()
    return state


def sizes_of(state: StateDict) -> DeepSpeechSizes:
    """The sizes of the network whose tensors, under our names, a file has. Raises WeightsMismatchError."""
    layers = {int(found[1]) for name in state if (found := _LAYER.fullmatch(name))}
    first = state.get("trunk.rnns.0.rnn.weight_hh_l0")
    if first is None or first.ndim != 2 or layers != set(range(len(layers))):
        raise WeightsMismatchError(
            "the file has no recurrent layers named rnns.0.rnn, rnns.1.rnn and so on; it is no Deep Speech 2 of "
            "deepspeech.pytorch 2 or 3 (files of version 1 have other names and cannot be read)."
        )
    rows, hidden = first.shape
    kind = _KINDS.get(rows // hidden) if hidden and rows % hidden == 0 else None
    if kind is None:
        raise WeightsMismatchError(
            f"the first recurrent layer's weights are {rows}x{hidden}, which is no LSTM, GRU or plain recurrent layer."
        )
    ahead = state.get("trunk.lookahead.0.conv.weight")
    return DeepSpeechSizes(
        hidden=hidden,
        layers=len(layers),
        kind=kind,
        bidirectional="trunk.rnns.0.rnn.weight_hh_l0_reverse" in state,
        context=ahead.shape[2] if ahead is not None and ahead.ndim == 3 and ahead.shape[2] else 20,
    )


def _stand_in(name: str) -> Any:
    if name == "collections.defaultdict":
        return _empty_map
    return Noted if name in _NAMES or name.startswith(_PACKAGES) else None


def _empty_map(*given: Any) -> dict[Any, Any]:
    return {}


def _alphabet(path: Path, labels: Any) -> Alphabet:
    symbols = labels if isinstance(labels, (list, tuple, str)) else ()
    if BLANK not in symbols or not all(isinstance(symbol, str) for symbol in symbols):
        raise WeightsMismatchError(
            f"{path} lists {str(labels)[:60]!r} as its labels; they are symbols, one of them '_'."
        )
    try:
        return Alphabet(symbols=tuple(symbols), blank=list(symbols).index(BLANK))
    except ConfigurationError as error:
        raise WeightsMismatchError(f"the labels in {path} cannot be read: {error}") from error


def _check_spectrogram(path: Path, settings: Mapping[str, Any]) -> None:
    other = {name: value for name, value in settings.items() if name in _SPECTROGRAM and value != _SPECTROGRAM[name]}
    if other:
        raise WeightsMismatchError(
            f"the network in {path} hears spectrograms with {other}; only those of the published networks can be made "
            f"here: {_SPECTROGRAM}."
        )


def _values(noted: Any) -> dict[str, Any]:
    """Settings as a map of plain values: from a dict, a dataclass, or omegaconf's notes of either."""
    state = noted.state if isinstance(noted, Noted) else noted
    if _is_map(state):
        state = state.get("_content", state)
    return {str(name): _value(value) for name, value in state.items()} if _is_map(state) else {}


def _value(noted: Any) -> Any:
    if not isinstance(noted, Noted):
        return noted
    if _is_map(noted.state):
        return _value(noted.state.get("_val"))
    return noted.given[0] if noted.given else None  # a member of an enumeration


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping)
