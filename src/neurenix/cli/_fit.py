"""`neurenix fit`: fine-tune, compare, save, reload, predict. Killed, the same command goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..callbacks import ProgressBar, Tracker
from ..data import label_names, relabelled, sample_name
from ..errors import ConfigurationError, MissingPackageError
from ..models import ARCHITECTURES
from ..report import save_report_figure
from ..storage import write_json
from ..training import LOSSES, History
from ..transfer import Finetuner, load_pretrained_model
from ..transfer.strategies import STRATEGIES
from ._arguments import Options, take
from ._baselines import BASELINES, Outcome, check_baselines, raw_pixels, remembered
from ._data import datasets
from ._folders import choose_folder

if TYPE_CHECKING:
    import jsonargparse

TRANSFER = "transfer (pretrained weights)"
_LOADING = ("domain", "weights", "input_shape", "pooling", "max_length", "device")
_LOAD_SKIP = {"model_name", "include_top", "minimum_pretrained", "accept_licence"}
# a head is an object of Python; read from a configuration it would be a class that a file names
_TUNER_SKIP = {"model", "num_classes", "strategy", "seed", "head"}
_FIT_SKIP = {"train_dataset", "val_dataset", "callbacks", "batch_size", "epochs", "run"}


def job(
    model: str = "efficientnet-lite0",
    strategy: str = "auto",
    epochs: int = 5,
    batch_size: int = 16,
    output: str | None = None,
    baselines: Sequence[str] = (),
    trackers: Sequence[str] = (),
) -> None:
    """What to do.

    Args:
        model: A pretrained model; `neurenix models` lists them.
        strategy: full, partial, head, progressive, lp_ft or auto.
        epochs: Passes over the training data.
        batch_size: Samples per batch.
        output: The run's folder, for the tuned model, the figures and the picture; by default runs/<model>-<data>.
        baselines: random (the same network from random weights) and pixels (logistic regression on raw pixels).
        trackers: Where every epoch's numbers go besides: tensorboard, wandb, mlflow, trackio, …
    """


def parser() -> Options:
    """The options of `neurenix fit`."""
    options = Options(
        "fit",
        "Fine-tune a pretrained model on your data.",
        "neurenix fit --data flowers/ --model efficientnet-lite0 --strategy lp_ft --output runs/flowers",
    )
    options.parser.add_argument("--config", action="config", help="A YAML file as --print_config writes it.")
    options.add("the job", job)
    options.add("the data", datasets)
    options.add("the pretrained model", load_pretrained_model, skip=_LOAD_SKIP)
    options.add("the tuning", Finetuner, skip=_TUNER_SKIP)
    options.add("the fit", Finetuner.fit, skip=_FIT_SKIP)
    return options


def run(arguments: jsonargparse.Namespace) -> None:
    """Do the job and say what came out."""
    # on a command line everything is a word, also what may be a folder or yes or no
    arguments.resume = {"true": True, "false": False}.get(str(arguments.resume).lower(), arguments.resume)
    check_baselines(arguments.baselines)
    ARCHITECTURES.canonical(arguments.model)
    STRATEGIES.canonical(arguments.strategy)
    if arguments.epochs < 1:
        raise ConfigurationError(f"--epochs {arguments.epochs}: train for at least one.")
    train, test = datasets(**take(arguments, datasets))
    names = label_names(train)
    test = relabelled(test, names) if names else test
    output = choose_folder(arguments)
    print(f"{len(train)} samples to learn from, {len(test)} to test on; {arguments.model}, {arguments.strategy}")
    print(f"run folder: {output}")
    model = _loaded(arguments)
    tuner, tuned = _train(arguments, TRANSFER, model, train, test, {"strategy": arguments.strategy}, output)
    scores = tuner.evaluate(test, arguments.batch_size, arguments.num_workers)
    write_json(output / "metrics.json", History([scores]).as_json()[0])
    outcomes = [tuned, *_baseline_outcomes(arguments, train, test, output / "baselines")]
    if tuner.task == "multi_class":
        _show_table(outcomes)
        _draw(output / "report.png", tuner, test, outcomes, arguments)
    else:
        print(", ".join(f"{name} {value:.4f}" for name, value in scores.items() if isinstance(value, float)))
    _show_predictions(output, test)


def _train(
    arguments: jsonargparse.Namespace,
    name: str,
    model: Any,
    train: Any,
    test: Any,
    changes: dict[str, Any],
    folder: Path,
) -> tuple[Finetuner, Outcome]:
    print(f"\n{name}")
    settings = {**take(arguments, Finetuner, skip=_TUNER_SKIP), "seed": arguments.seed, **changes}
    tuner = Finetuner(model, num_classes=_outputs(train, settings["loss"]), **settings)
    options = {**take(arguments, Finetuner.fit, skip=_FIT_SKIP), "run": folder}
    if folder.name in BASELINES:  # is begun when the main run is done, so nothing may be there to resume
        options["resume"] = None
    callbacks = [ProgressBar(), *(Tracker(tracker, folder / "trackers") for tracker in arguments.trackers)]
    history = tuner.fit(train, test, arguments.batch_size, arguments.epochs, callbacks, **options)
    accuracy = float(history.epochs[-1].get("val_accuracy", float("nan")))
    seconds = sum(history["seconds"])
    return tuner, Outcome(name, accuracy, tuner.summary().trainable, seconds, history.epochs)


def _loaded(arguments: jsonargparse.Namespace, **changes: Any) -> Any:
    """The model; weights that are drawn at random are those of the seed, so that the same command means the same."""
    chosen = {**{name: arguments[name] for name in _LOADING}, **changes}
    if str(chosen["weights"]).lower() in ("none", "null"):  # on a command line everything is a word
        chosen["weights"] = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arguments.seed)
        return load_pretrained_model(arguments.model, **chosen)


def _outputs(dataset: Any, loss: str) -> int:
    names = label_names(dataset)
    if names:
        return len(names)
    if LOSSES[loss].task == "regression":
        return 1
    raise ConfigurationError("these data name no classes; use class folders, or a table with a target column.")


def _baseline_outcomes(arguments: jsonargparse.Namespace, train: Any, test: Any, folder: Path) -> list[Outcome]:
    outcomes = []
    if "random" in arguments.baselines:
        fresh = _loaded(arguments, weights=None)
        # From random weights there is nothing to protect: every layer learns at the usual rate.
        changes = {"strategy": "full", "learning_rate": 1e-3, "freeze_layers": (), "layer_learning_rates": None}
        name = "the same from random weights"
        outcomes.append(_train(arguments, name, fresh, train, test, changes, folder / "random")[1])
    if "pixels" in arguments.baselines:
        outcomes.append(remembered(folder / "pixels.json", lambda: raw_pixels(train, test)))
    return outcomes


def _show_table(outcomes: Sequence[Outcome]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="\nIs transfer helping?", title_justify="left")
    for column, justify in (("method", "left"), ("test accuracy", "right"), ("trained", "right"), ("seconds", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for outcome in outcomes:
        values = (f"{outcome.accuracy:.3f}", f"{outcome.parameters:,}", f"{outcome.seconds:.1f}")
        table.add_row(outcome.name, *values)
    Console().print(table)


def _draw(path: Path, tuner: Finetuner, test: Any, outcomes: Sequence[Outcome], arguments: Any) -> None:
    from ..data import all_targets

    names = list(tuner.model.categories)
    places = {name: place for place, name in enumerate(names)}
    matrix = [[0.0] * len(names) for _ in names]
    for true, predicted in zip(all_targets(test), tuner.predict(test, arguments.batch_size), strict=True):
        matrix[int(true)][places[str(predicted)]] += 1
    try:
        save_report_figure(
            path,
            histories={outcome.name: outcome.history for outcome in outcomes if outcome.history},
            levels={outcome.name: outcome.accuracy for outcome in outcomes if not outcome.history},
            matrix=matrix,
            names=names,
            title=f"{arguments.model} on {arguments.data}",
        )
        print(f"learning curves and confusion matrix: {path}")
    except MissingPackageError as error:
        print(f"no picture was drawn: {error}")


def _show_predictions(folder: Path, test: Any, count: int = 6) -> None:
    """Load the saved model again, as its user will, and ask it about some test samples."""
    tuner = Finetuner.load(folder)
    count = min(count, len(test))
    places = [index * len(test) // count for index in range(count)]
    samples = [test[place][0] for place in places]
    answers = tuner.predict(samples)
    shares = tuner.predict_proba(samples).max(1) if tuner.task == "multi_class" else None
    print("\nthe saved model, loaded again, says:")
    for row, (place, answer) in enumerate(zip(places, answers, strict=True)):
        certain = "" if shares is None else f" ({shares[row]:.0%})"
        print(f"  {_short_name(test, place)} -> {answer}{certain}")
    print(f"\nuse it: neurenix predict --model {folder} FILE …")


def _short_name(dataset: Any, place: int) -> str:
    return "/".join(Path(sample_name(dataset, place)).parts[-2:])
