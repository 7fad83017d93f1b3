"""`neurenix evaluate`: measure a tuned model on labelled data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..transfer import Finetuner
from ._arguments import Options, take
from ._data import part_of

if TYPE_CHECKING:
    import jsonargparse


def evaluation(
    model: str,
    data: str,
    input: str | None = None,
    target: str | None = None,
    kind: str | None = None,
    batch_size: int = 32,
) -> None:
    """What to measure on what.

    Args:
        model: The folder that `neurenix fit` or Finetuner.save wrote.
        data: A folder of class folders, an archive of one, a CSV or Parquet table, or the word clipart; of a folder
            that holds val/ or test/ beside train/, that part.
        input: The column of a table that holds paths or texts.
        target: The column of a table that holds the answers.
        kind: What a table's input column holds: image (paths) or text; by default what its first value looks like.
        batch_size: Samples per batch.
    """
    dataset = part_of(data, "test", input, target, kind)
    for name, value in Finetuner.load(model).evaluate(dataset, batch_size).items():
        print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")


def parser() -> Options:
    """The options of `neurenix evaluate`."""
    options = Options(
        "evaluate", "Measure a tuned model.", "neurenix evaluate --model runs/fit/model --data flowers/test"
    )
    options.add("what", evaluation)
    return options


def run(arguments: jsonargparse.Namespace) -> None:
    """Print every metric that the model was tuned with."""
    evaluation(**take(arguments, evaluation))
