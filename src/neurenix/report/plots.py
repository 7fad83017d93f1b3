"""Learning curves and confusion matrices with matplotlib: no global figure, no changed settings, no display.

Colours are those of Okabe and Ito (Color Universal Design, 2008), which stay apart for colour-blind readers; each
line also has a marker of its own, so that a print in grey can be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from ..errors import ConfigurationError
from ..packages import require
from ..storage import replacing
from ..training import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..transfer import Comparison

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_TEXT, _TITLE, _GREY = 11, 13, "#444444"
_MOST_NUMBERED = 25  # classes; beyond that a cell is smaller than its count
_SHARES = frozenset({"accuracy", "top5_accuracy", "f1_score", "precision", "recall", "auroc"})  # lie in 0..1


def learning_curves(
    histories: Mapping[str, History | Sequence[Mapping[str, Any]]],
    axes: Axes,
    quantity: str = "val_accuracy",
    levels: Mapping[str, float] | None = None,
) -> None:
    """Draw one line per history: `quantity` after each epoch, counted from 1.

    histories: name of a method -> its history. quantity: a key of the epochs' records.
    levels: name -> value of methods without epochs, drawn as dashed lines.

    Raises:
        ConfigurationError: none of the histories has that quantity.
    """
    curves = {name: _values(history, quantity) for name, history in histories.items()}
    if not any(curves.values()):
        raise ConfigurationError(f"no history holds {quantity!r}; {_recorded(histories)}")
    longest = max(len(values) for values in curves.values())
    for index, (name, values) in enumerate(curves.items()):
        axes.plot(range(1, len(values) + 1), values, label=name, linewidth=2.2, markersize=6, **_style(index))
    for index, (name, value) in enumerate((levels or {}).items(), start=len(curves)):
        axes.axhline(value, label=name, linewidth=2, linestyle=(0, (4, 2)), color=COLOURS[index % len(COLOURS)])
    _label_epochs(axes, longest, quantity)


def confusion_matrix(matrix: Sequence[Sequence[float]] | numpy.ndarray, names: Sequence[str], axes: Axes) -> None:
    """Draw counts of (true class, predicted class); colour is the share of the true class.

    matrix: (classes, classes), rows are the true classes. names: one per class.
    """
    counts = numpy.asarray(matrix, dtype=float)
    if counts.ndim != 2 or counts.shape != (len(names), len(names)):
        raise ConfigurationError(
            f"the confusion matrix has shape {counts.shape} for {len(names)} names; it has to be "
            "(classes, classes), with one name per class."
        )
    shares = counts / numpy.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    _label_classes(axes, names)
    if len(names) <= _MOST_NUMBERED:
        _write_counts(axes, counts, shares)


def save_report_figure(
    path: Path,
    *,
    histories: Mapping[str, History | Sequence[Mapping[str, Any]]],
    quantity: str = "val_accuracy",
    levels: Mapping[str, float] | None = None,
    matrix: Sequence[Sequence[float]] | None = None,
    names: Sequence[str] = (),
    title: str = "",
) -> None:
    """Write a PNG with the learning curves and, where there is one, the confusion matrix beside them.

    The file is whole or absent. See learning_curves and confusion_matrix for the arguments.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    figure, curves, square = _canvas(with_matrix=matrix is not None, classes=len(names))
    learning_curves(histories, curves, quantity, levels)
    curves.set_title(f"{_spoken(quantity)} after each epoch", fontsize=_TITLE, loc="left", pad=12)
    if matrix is not None and square is not None:
        confusion_matrix(matrix, names, square)
        square.set_title("How the tuned model sorts them", fontsize=_TITLE, loc="left", pad=12)
    if title:
        figure.suptitle(title, fontsize=_TITLE + 2, fontweight="bold", x=0.01, ha="left")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, facecolor="white")


def _canvas(with_matrix: bool, classes: int) -> tuple[Figure, Axes, Axes | None]:
    figures = require("matplotlib.figure", purpose="drawing a report", install="neurenix[plot]")
    side = 5.6 + max(0, min(classes, 40) - 12) * 0.22  # a row needs about its line of text
    figure = figures.Figure(figsize=(6.6 + (side if with_matrix else 0), side), layout="constrained")
    if not with_matrix:
        return figure, figure.subplots(), None
    left, right = figure.subplots(1, 2, width_ratios=[6.2, side])
    return figure, left, right


def _style(index: int) -> dict[str, Any]:
    # after seven, the colours come again with other markers
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]}


def _values(history: History | Sequence[Mapping[str, Any]], quantity: str) -> list[float]:
    records = history.epochs if isinstance(history, History) else history
    return [float(record[quantity]) for record in records if quantity in record]


def _recorded(histories: Mapping[str, History | Sequence[Mapping[str, Any]]]) -> str:
    records = [
        record
        for history in histories.values()
        for record in (history.epochs if isinstance(history, History) else history)
    ]
    known = sorted({key for record in records for key in record})
    return f"they hold {', '.join(known) or 'nothing yet'}."


def _label_epochs(axes: Axes, longest: int, quantity: str) -> None:
    axes.set_xlabel("epoch", fontsize=_TEXT, color=_GREY)
    axes.set_ylabel(_spoken(quantity), fontsize=_TEXT, color=_GREY)
    axes.set_xticks(range(1, longest + 1, max(1, -(-longest // 12))))
    axes.set_xlim(0.7, longest + 0.3)
    if quantity.removeprefix("val_") in _SHARES:
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.tick_params(labelsize=_TEXT, colors=_GREY)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    # Below the axes, where no line can run through it.
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, fontsize=_TEXT, frameon=False)


def _label_classes(axes: Axes, names: Sequence[str]) -> None:
    step = max(1, -(-len(names) // 40))
    places, shown = range(0, len(names), step), [_short(name) for name in names[::step]]
    axes.set_xticks(places, shown, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, shown)
    axes.set_xlabel("predicted", fontsize=_TEXT, color=_GREY)
    axes.set_ylabel("true", fontsize=_TEXT, color=_GREY)
    axes.tick_params(labelsize=_TEXT if len(names) <= 20 else 7, length=0)
    axes.spines[:].set_visible(False)


def _write_counts(axes: Axes, counts: numpy.ndarray, shares: numpy.ndarray) -> None:
    size = _TEXT if len(counts) <= 12 else 8
    for row, column in numpy.argwhere(counts > 0):
        colour = "white" if shares[row, column] > 0.55 else "black"
        text = f"{counts[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)


def _short(name: object) -> str:
    text = str(name)
    return text if len(text) <= 18 else f"{text[:17]}…"


def _spoken(quantity: str) -> str:
    """`val_f1_score` as people say it: `validation f1 score`."""
    spoken = quantity.replace("_", " ")
    return f"validation {spoken.removeprefix('val ')}" if spoken.startswith("val ") else spoken


def costs(comparison: Comparison, axes: Axes) -> None:
    """Draw what each method reaches over the parameters that it trains; a line joins those that no other one beats."""
    for index, row in enumerate(comparison.rows):
        axes.errorbar(
            row.trained, row.score, yerr=row.spread or None, label=row.name, markersize=9, capsize=3, **_style(index)
        )
    best = comparison.best
    axes.step([row.trained for row in best], [row.score for row in best], where="post", color=_GREY, zorder=0)
    axes.set_xscale("log")
    axes.set_xlabel("trained parameters", fontsize=_TEXT)
    axes.set_ylabel(comparison.metric.replace("_", " "), fontsize=_TEXT)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=_TEXT - 2, loc="lower right")
