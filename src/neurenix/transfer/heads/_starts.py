"""How the weights of a head begin: at zero, or with the rows of classes that another head knows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import ConfigurationError, LabelMismatchError
from ...nn import VectorHead


def zeroed(head: nn.Module) -> nn.Module:
    """The head with its last linear layer at zero: all logits are equal, and the body gets no gradient at first."""
    last = last_linear(head)
    assert last is not None
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return head


def last_linear(head: nn.Module) -> nn.Linear | None:
    """The last linear layer of a head; None where it has none."""
    layers = [module for module in head.modules() if isinstance(module, nn.Linear)]
    return layers[-1] if layers else None


def class_rows(head: nn.Module) -> list[Tensor]:
    """Parameters of a head whose rows belong to its outputs, (outputs, …); none where it has no such."""
    if isinstance(head, VectorHead):
        return list(head.class_rows())
    layers = [module for module in head.modules() if isinstance(module, nn.Linear)]
    return [layers[0].weight, layers[0].bias] if len(layers) == 1 else []


def copy_rows(old: nn.Module, old_names: Sequence[str], new: nn.Module, new_names: Sequence[str]) -> str:
    """Give the new head the old one's rows of classes that both have; the others keep what they have. Says which.

    Names of ImageNet are sets of synonyms, "tabby, tabby cat"; one of them is enough.
    Raises LabelMismatchError where no class is known, ConfigurationError where heads are of different make.
    """
    before, after = class_rows(old), class_rows(new)
    if [rows.shape[1:] for rows in before] != [rows.shape[1:] for rows in after] or not after:
        raise ConfigurationError(
            f"start='by_name' copies rows between heads of one make, and the model's own is {_described(before)}, the "
            f"new one {_described(after)}; take start='default' or 'closed_form'."
        )
    known = _places(old_names)
    found = {place: known[name] for place, name in enumerate(new_names) if name in known}
    if not found:
        raise LabelMismatchError(
            f"start='by_name' found none of {_listed(new_names)} among the classes that the model's own head knows "
            f"({_listed(old_names)}); take start='default' or 'closed_form'."
        )
    with torch.no_grad():
        for source, target in zip(before, after, strict=True):
            target[list(found)] = source[list(found.values())].to(target)
    others = [name for place, name in enumerate(new_names) if place not in found]
    copied = _listed([new_names[place] for place in found])
    return f"rows of the model's own head for {copied}; new: {_listed(others) if others else 'none'}"


def _places(names: Sequence[str]) -> dict[str, int]:
    """Name -> its place, whole names before single synonyms."""
    synonyms = {word.strip(): place for place, name in reversed(list(enumerate(names))) for word in name.split(",")}
    return synonyms | {name: place for place, name in enumerate(names)}


def _described(rows: Sequence[Tensor]) -> str:
    return " with ".join(f"{tuple(part.shape)}" for part in rows) or "none with a row for each class"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:8])) + ("…" if len(names) > 8 else "")
