"""A model in two where its head reads more than one vector: maps of several layers, or tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from ...models import PretrainedModel
from ...nn import TaskHead
from .graph import Inputs, NotSplittable
from .store import Boundary

READ = "read"  # what the head reads; of several tensors "read.0", "read.1", …
IMAGES = "images"
MASK = "attention_mask"


def reads_more(model: PretrainedModel) -> bool:
    """Whether the head reads something else than one vector for each sample."""
    return isinstance(model.head, TaskHead) and model.head.reads != "vector"


def beside(model: PretrainedModel, inputs: Inputs) -> Boundary:
    """What the head looks at of the inputs themselves: those that it names, of images their size alone.

    Images (n, 0, height, width) without channels have a size and take no room. Of tokens the mask is among them.
    """
    head = cast(TaskHead, model.head)
    found = dict(inputs) if isinstance(inputs, Mapping) else {IMAGES: inputs}
    wanted = {*(head.needs or ()), *([MASK] if head.reads == "tokens" else [])}
    return {
        name: (tensor[:, :0] if name == IMAGES else tensor).detach().cpu()
        for name, tensor in found.items()
        if name in wanted
    }


def tokens_of(model: PretrainedModel, inputs: Inputs) -> frozenset[str]:
    """Names in the boundary of tensors (n, tokens, …) that are as long as the longest text of a batch; none of images.

    Raises NotSplittable for tokens with a mask of their own, which is not that of the inputs.
    """
    if cast(TaskHead, model.head).reads != "tokens":
        return frozenset()
    trunk: Any = model.trunk
    if hasattr(trunk, "feature_mask") and trunk.feature_mask(inputs) is not None:
        raise NotSplittable("its tokens have a mask that is not that of its inputs")
    if not isinstance(inputs, Mapping) or MASK not in inputs:
        return frozenset()
    length = inputs[MASK].shape[1]
    return frozenset({READ} | {name for name, part in beside(model, inputs).items() if part.shape[1:] == (length,)})


@final
class Reading(nn.Module):
    """Inputs -> what a model's head reads, by name."""

    def __init__(self, model: PretrainedModel) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, inputs: Inputs) -> Boundary:
        """One tensor under READ, or several, numbered. Raises NotSplittable for anything else."""
        read = self.model.read(inputs)
        if cast(TaskHead, self.model.head).reads == "tokens":
            read = read[0]
        parts = {READ: read} if isinstance(read, Tensor) else {f"{READ}.{i}": part for i, part in enumerate(read)}
        if not all(isinstance(part, Tensor) and part.ndim for part in parts.values()):
            raise NotSplittable("what its head reads are no tensors with a row for each sample")
        return parts


@final
class Rereading(nn.Module):
    """Stands for a model whose trunk has run: answers as it does, given a boundary in place of the inputs.

    The head is the model's own, so training it trains the model.
    """

    def __init__(self, model: PretrainedModel) -> None:
        super().__init__()
        self.head = model.head
        self.training = model.training
        self._leading = model.pool.prefix_tokens

    def read(self, boundary: Boundary) -> Any:
        """What the model's read gave."""
        if cast(TaskHead, self.head).reads == "tokens":
            tokens = boundary[READ]
            mask = boundary[MASK][:, self._leading :].bool() if MASK in boundary else None
            return tokens, torch.ones_like(tokens[..., 0], dtype=torch.bool) if mask is None else mask
        if READ in boundary:
            return boundary[READ]
        return tuple(boundary[f"{READ}.{place}"] for place in range(sum(name.startswith(READ) for name in boundary)))

    def forward(self, boundary: Boundary, targets: Any = None) -> Any:
        """As PretrainedModel.forward of a TaskHead."""
        head, features = cast(TaskHead, self.head), self.read(boundary)
        return head(features, boundary) if targets is None else head.losses(features, boundary, targets)
