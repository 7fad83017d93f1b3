"""What a base was like before it was tuned or edited: digests of its tensors, by the names that they had then."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ..models import PretrainedModel
from ..models.fingerprint import key
from ..nn import BASE_LAYER
from ..storage import tensor_digest


def base_digests(model: nn.Module) -> dict[str, str]:
    """Digest of every tensor of a model's state, to find later what changed."""
    return {base_name(name): tensor_digest(tensor) for name, tensor in model.state_dict().items()}


def is_as_loaded(model: PretrainedModel, digests: Mapping[str, str]) -> bool:
    """Whether the model's trunk is still what its source gives. digests: as base_digests gives them."""
    own = {name.removeprefix("trunk."): digest for name, digest in digests.items() if name.startswith("trunk.")}
    return model.loaded is not None and key(own) == model.loaded


def base_name(name: str) -> str:
    """The name that a tensor had in the base, before methods put layers of their own around those of the model."""
    return ".".join(part for part in name.split(".") if part != BASE_LAYER)
