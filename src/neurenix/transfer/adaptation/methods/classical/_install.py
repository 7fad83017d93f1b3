"""Put the head that a classical method gives into a tuner's model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .....data import all_targets, as_dataset
from .....errors import ConfigurationError
from .....nn import evaluating
from ....features import FeatureExtractor
from ....heads._starts import last_linear
from ....labels import with_known_labels
from ....tuner import Tuner
from ._head import adapted_head
from ._method import ClassicalMethod


def install_adapted_head(
    tuner: Tuner,
    method: ClassicalMethod,
    source: Any,
    target: Any,
    batch_size: int = 32,
    num_workers: int = 0,
    strength: float = 1.0,
) -> None:
    """Solve the head's last linear layer anew, on what enters it, and set it; nothing else of the model changes.

    source: labelled samples, target: samples whose labels, if there are any, are not read. strength: see logistic_head.
    Raises ConfigurationError for models that do not classify and heads that do not end in a linear layer, and what
    adapted_head raises; the model is untouched then.
    """
    if tuner.task not in method.tasks:
        raise ConfigurationError(
            f"{type(method).__name__} is for {', '.join(method.tasks)} classification; this model does {tuner.task}."
        )
    labelled = with_known_labels(as_dataset(source), tuner.model.categories, tuner.num_outputs, False)
    layer = last_layer(tuner)
    here, there = (_entering(tuner, layer, data, batch_size, num_workers) for data in (labelled, as_dataset(target)))
    labels = torch.from_numpy(all_targets(labelled))
    weight, bias = adapted_head(method, here, labels, there, tuner.num_outputs, strength)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)


def last_layer(tuner: Tuner) -> nn.Linear:
    """The layer that is solved anew; raises ConfigurationError for a head that does not end in one."""
    layer = last_linear(tuner.model.head)
    if layer is None or layer.bias is None or layer.out_features != tuner.num_outputs:
        raise ConfigurationError(
            "classical methods give the weight and bias of a linear layer, and the head "
            f"{type(tuner.model.head).__name__} does not end in one; take heads.Linear or heads.MLP."
        )
    return layer


@torch.no_grad()
def _entering(tuner: Tuner, layer: nn.Linear, data: Any, batch_size: int, num_workers: int) -> Tensor:
    """What enters the head's last layer, (n, d) on the CPU."""
    features, _ = FeatureExtractor(tuner.model).extract(data, batch_size, num_workers, progress=False)
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    try:
        with evaluating(tuner.model):
            outputs = tuner.model.head(features.to(layer.weight))
            plain = nn.functional.linear(seen[-1], layer.weight, layer.bias)
    finally:
        handle.remove()
    if outputs.shape != plain.shape or not torch.allclose(outputs, plain):
        raise ConfigurationError(
            f"the head {type(tuner.model.head).__name__} changes what its last linear layer gives, so that a layer "
            "solved for the classes would not give them; take heads.Linear or heads.MLP."
        )
    return seen[-1].float().cpu()
