"""Whatever a user passes as data becomes a loader of batches that the model can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler
from torch.utils.data import DataLoader as TorchDataLoader

from ..data import (
    ArrayDataset,
    AudioFiles,
    AudioFolder,
    Batch,
    DataLoader,
    ImageFiles,
    ImageFolder,
    TableDataset,
    TextDataset,
    as_dataset,
    has_answers,
    has_tagged_words,
    innermost,
    prepare,
    texts_of,
)
from ..devices import is_out_of_memory
from ..errors import ConfigurationError, InputMismatchError, LabelMismatchError, NeurenixError
from ..metrics import TaskKind
from ..models import PretrainedModel
from ..nn import TaskHead, evaluating
from ..training import Objective
from .arguments import check_types
from .labels import check_contract, sequence_targets, with_known_labels
from .one_or_many import many

_MODELS = {
    **{"image": "an image", "text": "a text", "sound": "an audio", "music": "a music"},
    **{"video": "a video", "table": "a table", "series": "a time series"},
}
_DATA = {
    **{"image": "images", "text": "texts", "sound": "sounds", "music": "MIDI files"},
    **{"video": "lists of images", "table": "rows", "series": "arrays (steps, channels)"},
}

Use = Literal["training", "evaluation", "prediction", "adaptation"]  # the last trains without labels


def loader_for(
    data: Any,
    model: PretrainedModel,
    use: Use,
    *,
    num_outputs: int,
    categories: Sequence[str],
    batch_size: int,
    num_workers: int,
    seed: int,
    views: int | None = None,
) -> DataLoader:
    """A loader over `data`, shuffled for training, with the model's preprocessing where samples are raw.

    A loader of neurenix or of torch brings its own dataset, batch size and workers; its drop_last holds for training
    alone, as every sample is evaluated and predicted. Labels are numbered as the head's outputs are, see
    with_known_labels; for a prediction or an adaptation they do not matter, and for a prediction one sample will do.
    """
    learns, is_labelled = use in ("training", "adaptation"), use in ("training", "evaluation")
    check_types({"batch_size": batch_size, "num_workers": num_workers}, {"batch_size": int, "num_workers": int})
    own: dict[str, Any] = {}
    if isinstance(data, (DataLoader, TorchDataLoader)):
        own, data = opened(data, batch_size), data.dataset
        own |= {"drop_last": own["drop_last"] and learns}
    if use == "prediction":
        data = _pairs(data) if _task(model) == "span_answering" else many(data, model.preprocess)
    dataset = ArrayDataset(data) if isinstance(data, torch.Tensor) else as_dataset(data)
    check_contract(model, dataset if is_labelled else None)
    if use != "prediction":
        _check_kind(dataset, model.preprocess)
    if is_labelled:
        _check_labelled(dataset)
    elif _task(model) == "span_answering" and has_answers(dataset):
        dataset = TextDataset(texts_of(dataset))
    elif _task(model) == "token_tagging" and has_tagged_words(dataset):
        dataset = TextDataset(texts_of(dataset))
    sequences = sequence_targets(model, dataset) if is_labelled else None
    if is_labelled and (sequences is None or _task(model) == "token_tagging"):
        dataset = with_known_labels(dataset, categories, num_outputs, learns)
    prepared = prepare(dataset, model.preprocess, learns)
    prepared = prepared if sequences is None else sequences(prepared)
    settings: dict[str, Any] = {
        **{"batch_size": batch_size, "num_workers": num_workers, "lengths": innermost(prepared, "lengths")},
        **{"views": views, **{name: value for name, value in own.items() if value is not None}},
    }
    settings["views"] = settings["views"] if learns else None
    return DataLoader(prepared, shuffle=learns, seed=seed, **settings)


def _task(model: PretrainedModel) -> str | None:
    return model.head.task if isinstance(model.head, TaskHead) else None


def _pairs(data: Any) -> Any:
    """Pairs of texts, or one, as a dataset: elsewhere a list of pairs is one of inputs with targets."""
    pairs = [data] if isinstance(data, tuple) else data
    is_text = isinstance(pairs, list) and all(
        isinstance(pair, tuple) and all(isinstance(part, str) for part in pair) for pair in pairs
    )
    return TextDataset(pairs) if is_text else data


def first_batch(loader: DataLoader, model: PretrainedModel, objective: Objective | None = None) -> Batch:
    """The first batch, compared with what weights, head and loss expect before any time is spent on the rest.

    objective: what will be asked of the batch; None where its labels do not matter.
    """
    batch = loader.first(0)
    if hasattr(model.preprocess, "check"):
        model.preprocess.check(batch.inputs)
    if objective is not None:
        objective.check(batch)
    if model.architecture is None:
        _try(model, batch)
    return batch


def check_is_no_pair(train: Any, validation: Any, task: TaskKind) -> None:
    """Raise ConfigurationError for fit(X, y): targets where the validation data belong."""
    if task == "generation":  # whose data are texts alone
        return
    if not hasattr(train, "__len__") or not isinstance(validation, Sequence) and not hasattr(validation, "ndim"):
        return
    if isinstance(validation, (str, tuple)) or len(train) != len(validation):
        return
    first = validation.iloc[0] if hasattr(validation, "iloc") else validation[0]
    flat = getattr(validation, "ndim", 1) == 1 and (isinstance(first, (bool, int, float, str)) or _is_number(first))
    if flat and not (isinstance(train, list) and isinstance(train[0], tuple)):
        raise ConfigurationError(
            "fit(X, y) would take y as the validation data: did you mean fit((X, y))? Validation data are a pair too: "
            "fit((X, y), (X_val, y_val))."
        )


def _is_number(value: Any) -> bool:
    return getattr(value, "ndim", None) == 0


def _check_kind(dataset: Any, preprocess: Any) -> None:
    """Raise InputMismatchError for texts that an image model shall read, and the like."""
    reads, came = getattr(preprocess, "reads", None), _kind_of(dataset)
    if reads is None or came is None or reads == came or (reads, came) == ("music", "text"):  # paths of MIDI files
        return
    shown = f": {str(dataset[0][0])[:60]!r} names no {reads} file" if came == "text" else ""
    raise InputMismatchError(
        f"this is {_MODELS[reads]} model, and the data are {came}s{shown}. Give {_DATA[reads]}, or load "
        f"{_MODELS[came]} model."
    )


def _kind_of(dataset: Any) -> str | None:
    """What a dataset's raw samples are, where it is certain."""
    for kinds, kind in (
        ((ImageFiles, ImageFolder), "image"),
        ((AudioFiles, AudioFolder), "sound"),
        ((TextDataset,), "text"),
    ):
        if isinstance(dataset, kinds):
            return kind
    found: str | None = getattr(dataset, "kind", None)
    return found if found in _DATA else None


def _check_labelled(dataset: Any) -> None:
    if isinstance(dataset, TableDataset) and dataset.targets is None:
        raise LabelMismatchError(
            f"none of the table's columns has a usual name for targets; columns: {', '.join(dataset.columns)}. Name "
            "them: TableDataset(table, input=…, target=…)."
        )


@torch.no_grad()
def _try(model: PretrainedModel, batch: Batch) -> None:
    """One sample through a module of the user's own, whose inputs nothing else is known of."""
    one = batch.parts(1)[0].to(next(model.parameters()).device)
    try:
        with evaluating(model), torch.random.fork_rng(devices=[]):
            model.read(one.inputs)
    except (RuntimeError, IndexError) as error:
        if isinstance(error, NeurenixError) or is_out_of_memory(error):
            raise
        raise InputMismatchError(
            f"{model.name} cannot read the first sample, {_described(one.inputs)}: {error}. Give samples in the shape "
            "and type that its forward() takes."
        ) from error


def _described(inputs: Any) -> str:
    if isinstance(inputs, torch.Tensor):
        return f"{tuple(inputs.shape[1:])} {str(inputs.dtype).removeprefix('torch.')}"
    return ", ".join(f"{name} {_described(value)}" for name, value in inputs.items())


def opened(loader: DataLoader | TorchDataLoader[Any], batch_size: int) -> dict[str, Any]:
    """What a loader brings: batch size, workers, collate, how much may go wrong, and whether ends are dropped."""
    if isinstance(loader, DataLoader):
        names = ("batch_size", "num_workers", "collate", "bad_limit", "timeout", "drop_last", "views", "lengths")
        return {name: getattr(loader, name) for name in names}
    _check_order(loader)
    batches = loader.batch_sampler  # None for batches that the dataset makes
    default = torch.utils.data.default_collate
    return {
        "batch_size": getattr(batches, "batch_size", batch_size),
        "num_workers": loader.num_workers,
        "collate": None if loader.collate_fn is default else loader.collate_fn,
        "drop_last": getattr(batches, "drop_last", False),
    }


def _check_order(loader: TorchDataLoader[Any]) -> None:
    """Raise ConfigurationError for a loader of torch whose choice of samples would not be followed."""
    sampler, batches = loader.sampler, loader.batch_sampler
    chooser = None
    if not isinstance(sampler, (RandomSampler, SequentialSampler)):
        chooser = type(sampler).__name__
    elif batches is not None and type(batches) is not BatchSampler:
        chooser = type(batches).__name__
    elif isinstance(sampler, RandomSampler) and (sampler.replacement or sampler.num_samples != len(loader.dataset)):  # type: ignore[arg-type]
        chooser = f"RandomSampler(replacement={sampler.replacement}, num_samples={sampler.num_samples})"
    if chooser is not None:
        raise ConfigurationError(
            f"this DataLoader draws its samples with {chooser}, which training here would not follow. Pass its "
            "dataset; for unequal classes use class_weights='balanced'."
        )
