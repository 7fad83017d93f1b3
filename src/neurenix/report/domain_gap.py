"""A picture of two domains' features before and after an adaptation: marker by domain, colour by class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from ..errors import ConfigurationError
from ..packages import require
from ..registry import Registry
from ..storage import replacing
from ..transfer.adaptation.gap import proxy_distance
from ..transfer.adaptation.selection import Evidence
from .plots import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TEXT, _TITLE, _GREY, _PALE = 11, 13, "#444444", "#b5b5b5"
_MOST = 500  # points of a domain; more hide each other
_DOMAINS = (("source", "o", 26, 0.45), ("target", "x", 30, 0.95))  # name, marker, size, opacity

PROJECTIONS: Registry[Callable[[numpy.ndarray, int], numpy.ndarray]] = Registry("projection of features")
"""(features (n, d), seed) -> places in the plane (n, 2)."""


def plot_domain_gap(
    path: str | Path,
    before: Evidence,
    after: Evidence,
    *,
    target_classes: Tensor | Sequence[int] | None = None,
    names: Sequence[str] = (),
    projection: str = "pca",
    title: str = "",
    seed: int = 0,
) -> None:
    """Write a PNG with two panels, the features before and after; circles are source samples, crosses target samples.

    Colour is the class: of the source the true one, of the target target_classes, (m,), where they are known, else what
    each model predicts. Beyond six classes the most frequent six have colours. Each panel is a projection of its own,
    of both domains at once, "pca" or "tsne", and says the proxy A-distance of all features.

    before, after: of the same samples, as AdaptationMetrics.evidence gives them; of each domain at most 500 are drawn.
    names: of the classes. Raises UnknownNameError for another projection; MissingPackageError without matplotlib.
    """
    project = PROJECTIONS[projection]
    known = None if target_classes is None else torch.as_tensor(target_classes)
    if known is not None and len(known) != len(after.target_outputs):
        raise ConfigurationError(
            f"target_classes has {len(known)} classes for {len(after.target_outputs)} target samples; give one each."
        )
    figures = require("matplotlib.figure", purpose="drawing a report", install="neurenix[plot]")
    figure = figures.Figure(figsize=(12.6, 6.2), layout="constrained")
    colours = _colours(before, known)
    for axes, evidence, moment in zip(figure.subplots(1, 2), (before, after), ("before", "after"), strict=True):
        _draw(axes, evidence, known, colours, project, seed)
        distance = proxy_distance(evidence.source_features, evidence.target_features)
        axes.set_title(f"{moment} adapting: proxy A-distance {distance:.2f}", fontsize=_TITLE, loc="left", pad=10)
    figure.legend(
        handles=_legend(colours, names, everything=before.target_outputs.shape[1] <= len(colours)),
        loc="outside lower center",
        ncols=9,
        fontsize=_TEXT,
        frameon=False,
    )
    if title:
        figure.suptitle(title, fontsize=_TITLE + 2, fontweight="bold", x=0.01, ha="left")
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=110, facecolor="white")


@PROJECTIONS.register("pca")
def principal_components(features: numpy.ndarray, seed: int) -> numpy.ndarray:
    """The two directions of the largest variance, each turned so that its largest entry is positive. -> (n, 2)."""
    centred = features - features.mean(0)
    _, _, directions = numpy.linalg.svd(centred, full_matrices=False)
    first = directions[:2]
    first = first * numpy.sign(first[numpy.arange(len(first)), abs(first).argmax(1)])[:, None]
    places = centred @ first.T
    return places if places.shape[1] == 2 else numpy.column_stack([places, numpy.zeros(len(places))])


@PROJECTIONS.register("tsne")
def neighbour_embedding(features: numpy.ndarray, seed: int) -> numpy.ndarray:
    """T-SNE: who is near whom, with distances between groups that mean little. van der Maaten & Hinton, JMLR 2008."""
    manifold = require("sklearn.manifold", purpose="t-SNE", install="scikit-learn")
    perplexity = min(30.0, (len(features) - 1) / 3)
    start = "pca" if min(features.shape) >= 2 else "random"
    places: numpy.ndarray = manifold.TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(features)
    return places


def _draw(
    axes: Axes,
    evidence: Evidence,
    known: Tensor | None,
    colours: dict[int, str],
    project: Callable[[numpy.ndarray, int], numpy.ndarray],
    seed: int,
) -> None:
    decided = evidence.target_outputs.argmax(1) if known is None else known
    sides = [(evidence.source_features, evidence.source_targets), (evidence.target_features, decided)]
    chosen = [_drawn(len(features), seed) for features, _ in sides]
    rows = torch.cat([features[places] for (features, _), places in zip(sides, chosen, strict=True)])
    points = project(rows.detach().double().cpu().numpy(), seed)
    start = 0
    for (_, classes), places, (_, marker, size, opacity) in zip(sides, chosen, _DOMAINS, strict=True):
        part = points[start : start + len(places)]
        start += len(places)
        shades = [colours.get(int(number), _PALE) for number in classes[places]]
        filled: dict[str, Any] = {"linewidths": 0} if marker == "o" else {"linewidths": 1.4}
        axes.scatter(part[:, 0], part[:, 1], c=shades, marker=marker, s=size, alpha=opacity, **filled)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#cccccc")


def _colours(evidence: Evidence, known: Tensor | None) -> dict[int, str]:
    """A colour for each of the six most frequent classes, of the source and of what is known of the target."""
    classes = torch.cat([evidence.source_targets.cpu(), known.cpu() if known is not None else torch.empty(0).long()])
    numbers, counts = classes.unique(return_counts=True)
    frequent = numbers[counts.argsort(descending=True, stable=True)][: len(COLOURS) - 1]
    return dict(zip(sorted(frequent.tolist()), COLOURS, strict=False))


def _drawn(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:_MOST].sort().values


def _legend(colours: dict[int, str], names: Sequence[str], everything: bool) -> list[Any]:
    lines = require("matplotlib.lines", purpose="drawing a report", install="neurenix[plot]")

    def entry(label: str, colour: str, marker: str) -> Any:
        return lines.Line2D([], [], color=colour, marker=marker, linestyle="", markersize=8, label=label)

    domains = [entry(name, _GREY, marker) for name, marker, _, _ in _DOMAINS]
    labels = {number: str(names[number]) if number < len(names) else f"class {number}" for number in colours}
    classes = [entry(labels[number], colour, "s") for number, colour in colours.items()]
    return [*domains, *classes, *([] if everything else [entry("other classes", _PALE, "s")])]
