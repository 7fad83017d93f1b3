"""Samples into a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..errors import InputMismatchError, LabelMismatchError

Collate: TypeAlias = "Callable[[list[tuple[Any, Any]]], tuple[Any, Any]]"


def collate(samples: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    """(inputs, targets) of samples: tensors and arrays are stacked, numbers become a tensor, mappings go by key.

    Whole numbers become int64, reals float32. Targets are None where every sample's target is None.
    Raises InputMismatchError for inputs of different shapes, PIL images and texts, saying what to do.
    """
    inputs = _stack([sample[0] for sample in samples], torch.cuda.is_initialized())
    targets = [sample[1] for sample in samples]
    if all(target is None for target in targets):
        return inputs, None
    if any(target is None or isinstance(target, str) for target in targets):
        raise LabelMismatchError(
            "targets of a batch have to be numbers or tensors; among them: "
            f"{next(t for t in targets if not _usable(t))!r}. Datasets of neurenix number class names; give "
            "theirs as targets=…"
        )
    return inputs, _stack(targets, pinned=False)


def _usable(target: Any) -> bool:
    return target is not None and not isinstance(target, str)


def _stack(values: Sequence[Any], pinned: bool) -> Any:
    first = values[0]
    if isinstance(first, Mapping):
        return {key: _stack([value[key] for value in values], pinned) for key in first}
    if isinstance(first, bool | int | np.integer | np.bool_):
        return torch.tensor([int(value) for value in values])
    if isinstance(first, float | np.floating):
        return torch.tensor([float(value) for value in values], dtype=torch.float32)
    if isinstance(first, Tensor | np.ndarray):
        return _stack_tensors([torch.as_tensor(value) for value in values], pinned)
    raise InputMismatchError(_not_a_tensor(first))


def _stack_tensors(tensors: list[Tensor], pinned: bool) -> Tensor:
    shapes = list(dict.fromkeys(tuple(tensor.shape) for tensor in tensors))
    if len(shapes) > 1:
        raise InputMismatchError(
            f"the samples of a batch have different shapes: {', '.join(map(str, shapes[:4]))}. Bring images "
            "to one size (transforms.Resize and CenterCrop, or the model's own model.preprocess); pad "
            "sequences with a collate=… of your own; lengths=… batches similar ones."
        )
    if not pinned or not all(_is_plain(tensor, tensors[0].dtype) for tensor in tensors):
        return torch.stack(tensors)
    # from where a GPU copies by itself; such memory is used again, and is not brought in page by page each time
    batch = torch.empty(len(tensors), *tensors[0].shape, dtype=tensors[0].dtype, pin_memory=True)
    return torch.stack(tensors, out=batch)


def _is_plain(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether a tensor is nothing but numbers of a type in main memory."""
    strided = tensor.device.type == "cpu" and tensor.layout == torch.strided
    return strided and tensor.dtype == dtype and not tensor.requires_grad


def _not_a_tensor(value: Any) -> str:
    kind = type(value)
    if kind.__module__.startswith("PIL."):
        return (
            "the dataset gives PIL images, which a batch cannot hold; give it a transform that ends with "
            "transforms.ToTensor(), or let model.preprocess do it: neurenix.data.prepare(dataset, "
            "model.preprocess, training)."
        )
    if isinstance(value, str):
        return (
            f"the dataset gives texts ({value[:40]!r}), which a batch cannot hold; tokenise them with "
            "neurenix.data.prepare(dataset, model.preprocess, training)."
        )
    return f"a batch cannot hold {kind.__name__}; give tensors, arrays, numbers or mappings of them."
