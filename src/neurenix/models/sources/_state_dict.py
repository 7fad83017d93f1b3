"""Reading a weights file as data: safetensors, or a torch file without its code. Wrappers are taken off."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...errors import DamagedFileError, UnsafeFileError, WeightsMismatchError
from ...storage import check_hash, file_sha256, read_tensors
from ...tensor_files import check_torch_archive
from .._records import StateDict
from ._plain import check_plain

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
WRAPPERS = ("state_dict", "model", "model_state_dict", "model_state")
PREFIXES = ("module.", "_orig_mod.")  # DataParallel, torch.compile


def read_state_dict(path: Path, *, sha256: str | None = None) -> tuple[StateDict, str]:
    """The tensors of a weights file by name, and the file's SHA-256.

    sha256: what the file must hash to, whole or a published prefix.
    """
    if path.suffix == ".safetensors":
        found = file_sha256(path) if sha256 is None or len(sha256) < 64 else sha256.lower()
        check_hash(path, found, sha256)
        return _without_prefixes(check_plain(path, read_tensors(path, sha256=found))), found
    if path.suffix in TORCH_SUFFIXES:
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        check_hash(path, found, sha256)
        return _without_prefixes(check_plain(path, _tensors(path, _load_torch(path, content)))), found
    raise WeightsMismatchError(
        f"{path} is no weights file that can be read; its name must end in .safetensors or {', '.join(TORCH_SUFFIXES)}."
    )


def _load_torch(path: Path, content: bytes) -> Any:
    check_torch_archive(content, str(path))
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeFileError(
            f"{path} holds more than tensors and would have to run code to be read, so it is refused: "
            f"{_reason(error)} Save its state dict as safetensors where you trust it, and load that."
        ) from None
    except Exception as error:  # the parser of a damaged file may raise anything
        raise DamagedFileError(
            f"{path} is not a whole torch file ({_reason(error)}); fetch or save it again."
        ) from None


def _reason(error: Exception) -> str:
    """What was wrong, without torch's advice to load the file unsafely."""
    lines = str(error).splitlines() or [type(error).__name__]
    telling = [line.strip() for line in lines if "Unsupported" in line or "GLOBAL" in line] or lines[:1]
    return telling[0].split("WeightsUnpickler error:")[-1].split(" Please use")[0].strip()[:200]


def _tensors(path: Path, content: Any) -> StateDict:
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = content if isinstance(content, Mapping) else {}
    state = {
        name: value for name, value in tensors.items() if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    if not state:
        raise WeightsMismatchError(
            f"{path} holds {type(content).__name__} and no named tensors; a state dict is needed, bare or "
            f"under one of {', '.join(WRAPPERS)}."
        )
    return state


def _without_prefixes(state: StateDict) -> StateDict:
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state
