"""Putting a file's tensors into a freshly built network, and saying what became of each of them."""

from __future__ import annotations

import fnmatch
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ..errors import WeightsMismatchError, WeightsWarning
from ..vision.channels import convert_channels, usual_map
from ._load_report import LoadReport, TensorFate
from ._records import Architecture, Parts, StateDict

Convert = Callable[[StateDict], StateDict]
_ABSENT = "not in the file"


def conversions(state: StateDict, architecture: Architecture) -> list[StateDict]:
    """A file's tensors under our names (`trunk.layer1…`, `head.weight`), as they are and by each of the key conversions
    that the architecture's records know.
    """
    known: list[Convert] = [dict]
    for record in architecture.weights.values():
        if record.convert is not None and record.convert not in known:
            known.append(record.convert)
    return [_ours(convert(state), architecture.head_name) for convert in known]


def guessed(candidates: Sequence[StateDict]) -> StateDict:
    """Of these conversions the one that renames most, before a model is built to compare with."""
    plain = candidates[0].keys()
    return max(candidates, key=lambda candidate: len(candidate.keys() - plain))


def qualify(candidates: Sequence[StateDict], architecture: Architecture, reference: Iterable[str]) -> StateDict:
    """Of these conversions the one that makes the most keys match `reference`, the names of a built model."""
    known, whole = set(reference), len(candidates[0])
    best = max(candidates, key=lambda candidate: len(known & candidate.keys()))
    if len(best) != whole:
        raise WeightsMismatchError(
            f"{whole - len(best)} of the file's {whole} tensors have names that mean the same "
            f"layer of {architecture.name}; the file mixes naming schemes and cannot be read safely."
        )
    return best


def fill(parts: Parts, state: StateDict, *, stem: str) -> LoadReport:
    """Copy `state` (our names) into the parts, in place; what fits in no way stays random.

    stem: glob of the layer, below the trunk, whose input channels may differ from the file's.
    """
    fates: list[TensorFate] = []
    with torch.no_grad():
        for name, target in named_tensors(parts):
            fates.append(_fill_one(parts, name, target, state.get(name), stem))
    _report_non_finite(state)
    fate_of = {fate.name: fate.fate for fate in fates}
    for name, tensor in sorted(state.items()):
        if fate_of.get(name, "new") == "new":
            reason = "another shape" if name in fate_of else _why_unknown(name, parts, tensor)
            fates.append(TensorFate(name, "dropped", tensor.numel(), reason))
    return LoadReport(tuple(fates))


def _report_non_finite(state: StateDict) -> None:
    wrong = [name for name, tensor in state.items() if tensor.is_floating_point() and not bool(tensor.isfinite().all())]
    if wrong:
        names = ", ".join(name.removeprefix("trunk.") for name in wrong[:3])
        warnings.warn(
            f"{len(wrong)} tensors of the file hold NaN or infinity ({names}); what reads them gives no numbers. Fetch "
            "or save the weights again.",
            WeightsWarning,
            stacklevel=5,
        )


def untouched(parts: Parts) -> LoadReport:
    """The report of a model with random weights: everything is new."""
    return LoadReport(tuple(TensorFate(name, "new", tensor.numel()) for name, tensor in named_tensors(parts)))


def named_tensors(parts: Parts) -> list[tuple[str, Tensor]]:
    """Every saved tensor of trunk and head, under our names."""
    modules: list[tuple[str, nn.Module]] = [("trunk", parts.trunk)]
    if parts.head is not None:
        modules.append(("head", parts.head))
    return [(f"{part}.{name}", tensor) for part, module in modules for name, tensor in module.state_dict().items()]


def check_share(report: LoadReport, minimum: float, architecture: Architecture, file: Path | str) -> None:
    """Raise WeightsMismatchError, naming the largest misfits, when too little was in the file or its head differs."""
    if report.pretrained_share < minimum:
        missing, unused = _largest(report, "new"), _largest(report, "dropped")
        raise WeightsMismatchError(
            f"Only {report.pretrained_share:.1%} of {architecture.name} would be pretrained by {file}, and "
            f"minimum_pretrained is {minimum:.0%}. The model lacks {missing}; the file has {unused} without a "
            "use. Load the file under the name of its own architecture, or lower minimum_pretrained."
        )
    misfits = [fate for fate in report.tensors if _is_misfit(fate)]
    if misfits and minimum > 0:
        raise WeightsMismatchError(
            f"The head in {file} is not that of {architecture.name}: {misfits[0].name} ({misfits[0].note}). Load "
            "the file with include_top=False to leave its head out, or under the name of its own architecture."
        )


def _is_misfit(fate: TensorFate) -> bool:
    return fate.name.startswith("head.") and fate.fate == "new" and fate.note != _ABSENT


def _largest(report: LoadReport, fate: str, count: int = 3) -> str:
    worst = sorted((tensor for tensor in report.tensors if tensor.fate == fate), key=lambda tensor: -tensor.parameters)
    return (
        ", ".join(tensor.name + (f" ({tensor.note})" if tensor.note else "") for tensor in worst[:count]) or "nothing"
    )


def _ours(state: StateDict, head_name: str) -> StateDict:
    if all(name.startswith(("trunk.", "head.")) for name in state) and any(name.startswith("trunk.") for name in state):
        return dict(state)  # saved from one of our own models
    prefix = f"{head_name}."
    return {
        f"head.{name.removeprefix(prefix)}" if name.startswith(prefix) else f"trunk.{name}": tensor
        for name, tensor in state.items()
    }


def _fill_one(parts: Parts, name: str, target: Tensor, found: Tensor | None, stem: str) -> TensorFate:
    if found is None:
        return TensorFate(name, "new", target.numel(), _ABSENT)
    if found.shape == target.shape:
        target.copy_(found)
        return TensorFate(name, "matched", target.numel())
    adapted = _adapt(parts, name, target, found, stem)
    if adapted is None:
        return TensorFate(name, "new", target.numel(), _shapes(found, target))
    target.copy_(adapted)
    return TensorFate(name, "adapted", target.numel(), _shapes(found, target))


def _shapes(found: Tensor, target: Tensor) -> str:
    return f"{_size(found.shape)} in the file, {_size(target.shape)} here"


def _size(shape: Sequence[int]) -> str:
    return "x".join(str(length) for length in shape) or "scalar"


def _why_unknown(name: str, parts: Parts, tensor: Tensor) -> str:
    if name.startswith("head.") and parts.head is None:
        return "the head was not asked for"
    return f"{_size(tensor.shape)}, no such tensor here"


def _adapt(parts: Parts, name: str, target: Tensor, found: Tensor, stem: str) -> Tensor | None:
    """The file's tensor in the model's shape, where that keeps its meaning; None where it does not."""
    layer = name.removeprefix("trunk.").rpartition(".")[0]
    if name.startswith("trunk.") and fnmatch.fnmatchcase(layer, stem) and found.ndim == 4:
        return _adapt_channels(target, found)
    if name.endswith("pos_embed") and found.ndim == 3 and found.shape[2] == target.shape[2]:
        return _adapt_positions(parts, found, target)
    return None


def _adapt_channels(target: Tensor, found: Tensor) -> Tensor | None:
    """(o, old, h, w) -> (o, channels, h, w), by the usual map of channels; None for filters of another size."""
    if found.shape[0] != target.shape[0] or found.shape[2:] != target.shape[2:]:
        return None
    return convert_channels(found, usual_map(target.shape[1], found.shape[1]))


def _adapt_positions(parts: Parts, found: Tensor, target: Tensor) -> Tensor | None:
    """(1, prefix + places, d) -> the same for another grid of places, by bicubic interpolation; None for no square."""
    from timm.layers.pos_embed import resample_abs_pos_embed

    places = found.shape[1] - parts.prefix_tokens
    if found.shape[0] != target.shape[0] or places < 1 or math.isqrt(places) ** 2 != places:
        return None
    grid = cast("tuple[int, int]", cast(nn.Module, parts.trunk.patch_embed).grid_size)
    return cast(Tensor, resample_abs_pos_embed(found.float(), list(grid), num_prefix_tokens=parts.prefix_tokens))
