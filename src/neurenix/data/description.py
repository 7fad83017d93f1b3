"""A transform pipeline in words that change whenever what it does changes."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import ConfigurationError
from ..storage import tensor_digest

_PLAIN = (str, int, float, bool, bytes, type(None), torch.dtype, torch.device, Path)
_LIBRARIES = ("torchvision", "torch", "timm", "neurenix", "PIL", "numpy")


def describe(transform: Any) -> str:
    """A deterministic description of a transform with all its settings, for cache keys and records.

    Covers transforms of torchvision, timm and neurenix, their compositions, and any object that says itself
    what it does in a string attribute `cache_key`. Raises ConfigurationError for what it cannot know exactly,
    such as a lambda or a class of the user's own: never a description that two different transforms could
    share.
    """
    key = getattr(transform, "cache_key", None)
    if isinstance(key, str):
        return f"{_qualified(type(transform))}[{key!r}]"
    if isinstance(transform, enum.Enum):
        return f"{_qualified(type(transform))}.{transform.name}"
    if isinstance(transform, _PLAIN):
        return repr(transform)
    if isinstance(transform, Mapping):
        items = sorted((describe(name), describe(value)) for name, value in transform.items())
        return "{" + ", ".join(f"{name}: {value}" for name, value in items) + "}"
    if isinstance(transform, (list, tuple)):
        return f"{type(transform).__name__}({', '.join(describe(value) for value in transform)})"
    return _describe_object(transform)


def _describe_object(value: Any) -> str:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return f"tensor:{tensor_digest(torch.as_tensor(value))}"
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return _library_name(value)
    _library_name(type(value))
    return f"{_qualified(type(value))}({describe(_state(value))})"


def _state(value: Any) -> dict[str, Any]:
    """All that an object's behaviour depends on."""
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.compare}
    state = dict(vars(value)) if hasattr(value, "__dict__") else {}
    if not isinstance(value, nn.Module):
        return state
    if any(state.get(name) for name in ("_forward_hooks", "_forward_pre_hooks")):
        raise ConfigurationError(f"{type(value).__name__} carries hooks, which {_ADVICE}")
    own = {name: item for name, item in state.items() if name not in vars(nn.Module())}
    return own | {"tensors": dict(value.state_dict()), "parts": dict(value.named_children())}


_ADVICE = (
    "cannot be described exactly, so a cache could not tell it from another. Give the transform a string "
    "attribute `cache_key` that changes whenever it does something else, or use the transforms of "
    "neurenix.vision.transforms."
)


def _library_name(value: Any) -> str:
    name = _qualified(value)
    if name.split(".")[0] not in _LIBRARIES or "<" in name:
        raise ConfigurationError(f"{name} {_ADVICE}")
    return name


def _qualified(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"
