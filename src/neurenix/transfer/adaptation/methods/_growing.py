"""Buffers whose sizes are known only once a term has begun."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..method import Term


class GrowingTerm(Term, abc.ABC):
    """A term that makes buffers as it goes; a new one makes room for those that a checkpoint brings."""

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        for key, value in state_dict.items():
            name = key.removeprefix(prefix)
            own = isinstance(value, Tensor) and key.startswith(prefix) and "." not in name
            if own and name not in self._parameters and self._is_new(name, value):
                device = next((buffer.device for buffer in self._buffers.values() if buffer is not None), value.device)
                self.register_buffer(name, torch.empty_like(value, device=device))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def _is_new(self, name: str, value: Tensor) -> bool:
        buffer = self._buffers.get(name)
        return buffer is None or buffer.shape != value.shape
