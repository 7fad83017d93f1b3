"""`neurenix predict`: ask a tuned model about files or texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..transfer import Finetuner
from ._arguments import Options

if TYPE_CHECKING:
    import jsonargparse


def parser() -> Options:
    """The options of `neurenix predict`."""
    options = Options("predict", "Ask a tuned model.", "neurenix predict --model runs/fit/model bird.png")
    options.parser.add_argument("--model", type=str, help="The folder that `neurenix fit` or Finetuner.save wrote.")
    options.parser.add_argument("samples", nargs="*", help="Image files, or texts.")
    return options


def run(arguments: jsonargparse.Namespace) -> None:
    """Print one line per sample."""
    if not arguments.model or not arguments.samples:
        raise ConfigurationError("predict needs a model and samples: neurenix predict --model FOLDER FILE …")
    tuner = Finetuner.load(arguments.model)
    if tuner.model.domain != "nlp":
        _check_files(arguments.samples)
    answers = tuner.predict(arguments.samples)
    shares = tuner.predict_proba(arguments.samples).max(1) if tuner.loss.task == "multi_class" else None
    for row, (sample, answer) in enumerate(zip(arguments.samples, answers, strict=True)):
        print(f"{sample}\t{answer}" + ("" if shares is None else f"\t{shares[row]:.3f}"))


def _check_files(samples: list[str]) -> None:
    missing = [name for name in samples if not Path(name).is_file()]
    if missing:
        raise ConfigurationError(f"no such file: {', '.join(missing[:5])}.")
