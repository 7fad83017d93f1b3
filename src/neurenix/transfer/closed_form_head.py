"""Solve a model's linear head on the features of a loader, before the first gradient step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..data import Batch, DataLoader, Skipped, sample_name
from ..devices import is_exact, resolve_precision
from ..errors import ConfigurationError, NonFiniteError
from ..metrics import TaskKind
from ..models import PretrainedModel
from ..nn import Solvable, TaskHead, VectorHead, evaluating
from ..training import (
    FEATURES,
    Embedding,
    Features,
    FrozenLayers,
    LoopSettings,
    Objective,
    classification_head,
    discriminant_head,
    labelled,
    multi_label_head,
    ridge_head,
)
from .heads._kind import start_of


def solve_head(model: PretrainedModel, features_of: Callable[[], Features], task: TaskKind) -> None:
    """Set weight and bias of the head's one linear layer; dropout before it stays. Other heads do it themselves.

    Raises ConfigurationError for heads with hidden layers, which have no closed form.
    """
    if isinstance(model.head, Solvable) and model.head.is_solvable:
        known = features_of()
        model.head.solve(known.features, known.targets)
        return
    linear = the_linear_layer(model.head)
    if linear is None:
        raise ConfigurationError(
            "strategy='lp_ft' solves a linear head in closed form; leave head_hidden_sizes empty, or take "
            "strategy='progressive'."
        )
    known = features_of()
    features, targets = known.features, known.targets
    if start_of(model.head_record) == "lda":
        _check_classes(task)
        _set(linear, *discriminant_head(features, targets, linear.out_features))
        return
    if task == "multi_class":
        solved = classification_head(features, targets, linear.out_features)
    elif task == "multi_label":
        solved = multi_label_head(features, targets.reshape(len(targets), -1))
    else:
        solved = ridge_head(features, targets.reshape(len(targets), -1))
    _set(linear, solved.weight, solved.bias)


@torch.no_grad()
def _set(linear: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)


def _check_classes(task: TaskKind) -> None:
    if task != "multi_class":
        raise ConfigurationError(
            f"start='lda' is for one class per sample, and this loss is for {task}; take start='closed_form'."
        )


def is_solvable(head: nn.Module) -> bool:
    """Whether a head has a closed form."""
    return head.is_solvable if isinstance(head, Solvable) else the_linear_layer(head) is not None


def the_linear_layer(head: nn.Module) -> nn.Linear | None:
    """The head's linear layer when it has exactly one, and reads one vector per sample."""
    linear = (
        []
        if isinstance(head, (TaskHead, VectorHead))
        else [module for module in head.modules() if isinstance(module, nn.Linear)]
    )
    return linear[0] if len(linear) == 1 else None


@torch.no_grad()
def head_features(
    model: PretrainedModel,
    loader: DataLoader,
    objective: Objective,
    settings: LoopSettings,
    note: Callable[[Sequence[Skipped]], None],
) -> Features:
    """What enters the head for a whole loader, float32 on the CPU, in inference mode.

    note: is told the samples that could not be read.

    Raises LabelMismatchError for targets that the objective cannot use; NonFiniteError naming the samples whose
    features are NaN or infinite.
    """
    device = next(model.parameters()).device
    features, targets, indices, drew = [], [], [], False
    frozen: FrozenLayers | None = None
    with evaluating(model):
        for batch in loader.batches(0):
            objective.check(batch)
            if frozen is None:
                frozen = FrozenLayers(
                    Embedding(model),
                    lambda first=batch: first,  # type: ignore[misc]
                    device,
                    dataset=loader.dataset,
                    views=1,
                    size=4.0 * model.feature_size * len(loader.dataset),
                    precision=resolve_precision(settings.precision, device, model),
                    exact=is_exact(settings.precision, device),
                    options=settings.reuse,
                    say=_say,
                )
            features.append(frozen(batch)[FEATURES].float())
            targets.append(labelled(batch))
            indices.append(batch.indices)
            drew |= batch.drew
            _check_finite(features[-1], batch, loader)
    note(loader.skipped)
    if frozen is not None:
        frozen.finish()
    return Features(torch.cat(features), torch.cat(targets), torch.cat(indices), drew)


def _check_finite(features: Tensor, batch: Batch, loader: DataLoader) -> None:
    wrong = batch.indices[~torch.isfinite(features).all(1)].tolist()
    if wrong:
        names = ", ".join(sample_name(loader.dataset, index) for index in wrong[:5])
        raise NonFiniteError(
            f"the body gives NaN or infinite features for {len(wrong)} samples of a batch ({names}), so no head can be "
            "solved on them; look for NaN in these samples."
        )


def _say(message: str) -> None:
    print(f"neurenix: {message}")
