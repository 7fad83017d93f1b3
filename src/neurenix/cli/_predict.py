"""`neurenix predict`: ask a tuned model about files or texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..transfer import Finetuner
from ..transfer.one_or_many import images_in
from ._arguments import Options

if TYPE_CHECKING:
    import jsonargparse


def parser() -> Options:
    """The options of `neurenix predict`."""
    options = Options("predict", "Ask a tuned model.", "neurenix predict --model runs/fit/model bird.png")
    options.parser.add_argument("--model", type=str, help="The folder that `neurenix fit` or Finetuner.save wrote.")
    options.parser.add_argument("samples", nargs="*", help="Image files, folders of them, or texts.")
    return options


def run(arguments: jsonargparse.Namespace) -> None:
    """Print one line per sample."""
    if not arguments.model or not arguments.samples:
        raise ConfigurationError("predict needs a model and samples: neurenix predict --model FOLDER FILE …")
    tuner = Finetuner.load(arguments.model)
    samples = arguments.samples
    if tuner.model.domain != "nlp":
        samples = [file for sample in samples for file in _files(sample)]
    answers = tuner.predict(samples)
    shares = tuner.predict_proba(samples).max(1) if tuner.task == "multi_class" else None
    for row, (sample, answer) in enumerate(zip(samples, answers, strict=True)):
        print(f"{sample}\t{answer}" + ("" if shares is None else f"\t{shares[row]:.3f}"))


def _files(sample: str) -> list[str]:
    """An image file, or all of a folder's."""
    if Path(sample).is_dir():
        return list(images_in(sample).paths)
    if not Path(sample).is_file():
        raise ConfigurationError(f"no such file or folder: {sample}.")
    return [sample]
