"""What a loaded model answers, before it is tuned to anything: classes, boxes, masks, words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy
import torch
from torch import nn

from ..data import DataLoader, texts_of
from ..devices import Precision, autocast, resolve_precision
from ..errors import ConfigurationError
from ..metrics import TaskKind
from ..models import PretrainedModel
from ..nn import TaskHead, evaluating
from ..training.faults import in_fitting_parts
from .heads._choice import chosen_class
from .loaders import first_batch, loader_for
from .predictions import decide, finite_outputs


def predict(
    model: PretrainedModel, data: Any, batch_size: int = 32, num_workers: int = 0, precision: Precision = "auto"
) -> Any:
    """The answers of the head that a model was loaded with, one for each sample.

    data: raw samples of any kind that neurenix.data reads, one alone too; ready tensors are taken as they are.
    Class names (numbers where there are no names) of a classifier; of one whose classes go together ("tagging") a
    matrix (n, classes) of 0 and 1 in the order of model.categories; of other heads see dense_answers.
    Raises ConfigurationError for a model without a head.
    """
    if isinstance(model.head, nn.Identity):
        raise ConfigurationError(
            f"{model.name} has no head here, so it answers with features, which a FeatureExtractor gives. Where its "
            "weights have a head, include_top=True loads it; a Finetuner makes one of your own."
        )
    loader = loader_for(
        data,
        model,
        "prediction",
        num_outputs=0,
        categories=model.categories,
        batch_size=batch_size,
        num_workers=num_workers,
        seed=0,
    )
    if isinstance(model.head, TaskHead):
        return task_answers(model, loader, precision)
    return decide(finite_outputs(model, loader, precision, "auto"), _task_of(model), model.categories)


def task_answers(model: PretrainedModel, loader: DataLoader, precision: Precision) -> Any:
    """The answers of a TaskHead: as dense_answers gives them; of one that reads a vector as one array, or names."""
    head = cast(TaskHead, model.head)
    if head.task == "token_tagging":
        return tags_of_words(model, loader.dataset, dense_answers(model, loader, precision))
    if head.task == "span_answering":
        return parts_of_texts(model, loader.dataset, dense_answers(model, loader, precision))
    if head.reads != "vector":
        return dense_answers(model, loader, precision)
    values = vector_answers(model, loader, precision, head.answers)
    return numpy.asarray(model.categories)[values] if head.task == "ordinal" and model.categories else values


def tags_of_words(model: PretrainedModel, dataset: Any, answers: list[torch.Tensor]) -> list[Any]:
    """Tags of tokens as those of words: a list for each text, None for words that were cut; else arrays (tokens,).

    dataset: prepared from texts, one for each of the answers.
    """
    if not hasattr(model.preprocess, "word_places") or not hasattr(dataset, "dataset"):
        return [tags.numpy() for tags in answers]
    texts = texts_of(dataset.dataset)
    names: Any = model.categories or range(cast(TaskHead, model.head).num_outputs)
    return [
        [None if place < 0 else names[int(tags[place])] for place in places]
        for tags, places in zip(answers, model.preprocess.word_places(texts), strict=True)
    ]


def parts_of_texts(model: PretrainedModel, dataset: Any, answers: list[dict[str, Any]]) -> list[Any]:
    """Spans of tokens as parts of the texts; as they are where there are none. dataset: made from pairs of texts."""
    if not hasattr(model.preprocess, "part") or not hasattr(dataset, "dataset"):
        return answers
    pairs: list[Any] = texts_of(dataset.dataset)
    return [
        model.preprocess.part(texts, answer["first"], answer["last"])
        for texts, answer in zip(pairs, answers, strict=True)
    ]


def vector_answers(
    model: PretrainedModel, loader: DataLoader, precision: Precision, ask: Callable[[Any, Any], Any]
) -> numpy.ndarray:
    """What a method of a TaskHead that reads a vector gives, as one array with the samples first."""
    stacked: numpy.ndarray = torch.stack(dense_answers(model, loader, precision, ask)).numpy()
    return stacked


def _task_of(model: PretrainedModel) -> TaskKind:
    """What a model answers whose head gives logits or values."""
    attached = chosen_class(model.head_record)
    if attached is not None and attached.task is not None:
        return attached.task
    return "multi_label" if model.architecture and "tagging" in model.architecture.tasks else "multi_class"


@torch.no_grad()
def dense_answers(
    model: PretrainedModel, loader: DataLoader, precision: Precision, ask: Callable[[Any, Any], Any] | None = None
) -> list[Any]:
    """The answers of a TaskHead, one for each sample of a loader, in the dataset's order, on the CPU.

    ask: a method of the head; None is `answers`.

    detection: {"boxes": (k, 4) x1 y1 x2 y2, "scores": (k,), "labels": (k,)[, "masks": (k, height, width)]}.
    segmentation: (height, width) int64. Both in the pixels of the image as it came, where the model's preprocessing can
    tell (its method `restore`); else in those of the network's input.
    token_tagging: (tokens,) class numbers of the tokens that are no padding. span_answering: see heads.SpanAnswering.
    transcription, translation: a text. generation: (tokens, vocabulary) logits of the next one.
    """
    first_batch(loader, model)
    device, ask = next(model.parameters()).device, ask or cast(TaskHead, model.head).answers
    digits = resolve_precision(precision, device, model)
    answers: dict[int, Any] = {}

    def compute(part: Any) -> list[Any]:
        with autocast(device, digits):
            outputs = ask(model.read(part.inputs), part.inputs)
        restore = getattr(model.preprocess, "restore", None)
        return list(restore(outputs, part.inputs) if restore else outputs)

    with evaluating(model):
        for batch in loader.batches(0):
            parts = in_fitting_parts(batch.to(device), compute)
            found = [_on_cpu(answer) for part in parts for answer in part]
            answers |= dict(zip(batch.indices.tolist(), found, strict=True))
    return [answers[index] for index in sorted(answers)]


def _on_cpu(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {name: _on_cpu(value) for name, value in answer.items()}
    return answer.cpu() if isinstance(answer, torch.Tensor) else answer
