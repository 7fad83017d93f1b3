"""load_pretrained_model and list_models: from a name to a network with its published weights."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..devices import resolve_device
from ..errors import ConfigurationError
from ..models import (
    ARCHITECTURES,
    Architecture,
    BuildOptions,
    HubSource,
    LoadReport,
    Parts,
    PretrainedModel,
    Weights,
)
from ..models._choice import canonical_domain, check_licence, find_architecture, find_weights
from ..models._foreign_sizes import check_headless, naming, sketch
from ..models._inputs import fit_image_input, fit_sized_input, image_input_in
from ..models._labels import label_names
from ..models._loading import check_share, conversions, fill, guessed, named_tensors, qualify, untouched
from ..models._records import InputSpec, PathSource, StateDict
from ..models.fingerprint import trunk_digest
from ..models.sources import CONFIGURATION, Obtained, obtain
from ..nn import Pool, TaskHead
from ..storage import read_json, write_json
from ..vision import DetectionInput, ImageInput, SegmentationInput

_WORDS = {"nlp": "texts", "audio": "sounds"}


def load_pretrained_model(
    model_name: str,
    domain: str | None = None,
    weights: str | os.PathLike[str] | None = "default",
    input_shape: Sequence[int] | None = None,
    include_top: bool = True,
    pooling: str | None = None,
    max_length: int | None = None,
    device: str | torch.device = "auto",
    *,
    minimum_pretrained: float = 0.9,
    accept_licence: bool = False,
) -> PretrainedModel:
    """Build an architecture, put weights into it, and return it in evaluation mode.

    Args:
        model_name: As people spell it: `resnet50`, `mobilenetv2`, `EfficientNet-B7`,
            `google-bert/bert-base-uncased`.
        domain: `"vision"`, `"nlp"` or `"audio"`; only checked against the model's own.
        weights: A name from `list_weights(model_name)`, `None` for random weights, a path to a file or a
            folder, or `"hub:owner/name@revision"` for any repository on the hub with this architecture.
        input_shape: Images as (height, width, channels). Position embeddings and the first convolution are
            adapted to another size or number of channels. Images arrive in the network as (n, channels,
            height, width). Detectors and segmenters: the size that images are brought to.
        include_top: Whether to keep the published head: a classifier, or what reads unpooled features (boxes, masks,
            the next token; see TaskHead). Without one the model answers with its pooled features,
            (n, feature_size).
        pooling: `"avg"`, `"max"`, `"cls"`, `"gem"` or `"none"`. None is the pooling that the architecture was
            published with, also without the top: `model.features(x)` gives the unpooled map at any time, and
            `"none"` makes `model(x)` do so (in Keras that is `pooling=None`).
        max_length: Of what is read as a sequence of tokens, the longest, at most what the model has positions for.
        device: `"auto"` is the best one present.
        minimum_pretrained: Least share of the trunk's parameters that must come from the file.
        accept_licence: Say True to use weights whose licence forbids commercial use.

    Raises:
        UnknownNameError: No such model or weights; the nearest names are listed.
        ConfigurationError: Arguments that cannot work together.
        WeightsNotFoundError: The weights cannot be reached; the message says how to provide them.
        WeightsMismatchError: Less than `minimum_pretrained` of the model would be pretrained.
        DamagedFileError, UnsafeFileError: The file is not what its hash promises, or would run code.
        LicenceError: The licence was not accepted.
    """
    architecture = find_architecture(model_name, domain)
    _check_arguments(architecture, input_shape, max_length, include_top, pooling)
    target = resolve_device(device)
    record = find_weights(architecture, weights)
    obtained = None if record is None else _obtain(architecture, record, accept_licence)
    expected = _expected_input(architecture, record, obtained, input_shape)
    if record is None or obtained is None:
        parts = architecture.build(_options(expected, architecture.outputs if include_top else 0, None))
        report = untouched(parts)
    else:
        parts, report = _build(architecture, expected, obtained, include_top, minimum_pretrained, _where(record))
        check_share(report, minimum_pretrained, architecture, _where(record))
    source = {
        "model_name": architecture.name,
        "weights": _as_given(record),
        "input_shape": None if input_shape is None else list(input_shape),
        "include_top": include_top,
        "pooling": pooling,
        "max_length": max_length,
        "minimum_pretrained": minimum_pretrained,
        "accept_licence": accept_licence,
        **_provenance(obtained, expected),
    }
    model = _assembled(architecture, parts, report, source, record)
    with naming(_where(record) if record else architecture.name):
        model.preprocess = expected.open(parts.trunk, obtained.folder if obtained else None, max_length)
    model.loaded = None if obtained is None else trunk_digest(parts.trunk)
    return model.to(target).eval()


def rebuild_model(source: Mapping[str, Any], state: StateDict, *, keeps_head: bool, device: str) -> PretrainedModel:
    """A model as `source` describes it and of the sizes that its saved tensors have, with random weights.

    source: of the model that was saved. state: all of its tensors, under our names. keeps_head: the saved head is the
    one that the model was loaded with, so that its outputs count.
    """
    architecture = find_architecture(source["model_name"], None)
    shape = source["input_shape"]
    expected = _expected_input(architecture, None, None, tuple(shape) if shape else None)
    outputs = (architecture.count_outputs(state) if keeps_head else None) or architecture.outputs
    options = _options(expected, outputs if source["include_top"] else 0, state)
    with tempfile.TemporaryDirectory() as folder:
        if source.get("configuration") is not None:
            write_json(Path(folder) / CONFIGURATION, source["configuration"])
            options = replace(options, folder=folder)
        parts = architecture.build(options)
    model = _assembled(architecture, parts, untouched(parts), source, None)
    return model.to(resolve_device(device)).eval()


def list_models(domain: str | None = None, task: str | None = None) -> list[str]:
    """Names of the architectures, sorted; domain="nlp" or task="classification" narrow it."""
    wanted = None if domain is None else canonical_domain(domain)
    tasks = {known for architecture in ARCHITECTURES.values() for known in architecture.tasks}
    if task is not None and task not in tasks:
        raise ConfigurationError(f"task={task!r}; the models here do: {', '.join(sorted(tasks))}.")
    return sorted(
        name
        for name, architecture in ARCHITECTURES.items()
        if wanted in (None, architecture.domain) and (task is None or task in architecture.tasks)
    )


def list_weights(model_name: str) -> list[str]:
    """Names of the published weights of one architecture, its default first."""
    architecture = find_architecture(model_name)
    return sorted(architecture.weights, key=lambda name: (name != architecture.default_weights, name))


def _check_arguments(
    architecture: Architecture,
    input_shape: Sequence[int] | None,
    max_length: int | None,
    include_top: bool,
    pooling: str | None,
) -> None:
    sized = (ImageInput, DetectionInput, SegmentationInput)
    if input_shape is not None and not isinstance(architecture.input, sized):
        raise ConfigurationError(
            f"input_shape is for models that read images, and {architecture.name} reads "
            f"{_WORDS.get(architecture.domain, 'something else')}; leave it out."
        )
    if max_length is not None and not hasattr(architecture.input, "max_length"):
        raise ConfigurationError(
            f"max_length is for models that read tokens, and {architecture.name} reads "
            f"{_WORDS.get(architecture.domain, 'images')}; leave it out."
        )
    if pooling == "none" and include_top and isinstance(architecture.input, ImageInput):
        raise ConfigurationError(
            "pooling='none' leaves a feature map, which no classifier reads; add include_top=False."
        )


def _obtain(architecture: Architecture, record: Weights, accept_licence: bool) -> Obtained:
    check_licence(architecture, record, accepted=accept_licence)
    return obtain(record, _files_beside(architecture, record))


def _files_beside(architecture: Architecture, record: Weights) -> tuple[str, ...]:
    if architecture.input.files:
        return architecture.input.files
    published = record in architecture.weights.values()
    return () if published else ("config.json",)  # in it, timm states the image input of weights we have no record of


def _expected_input(
    architecture: Architecture,
    record: Weights | None,
    obtained: Obtained | None,
    input_shape: Sequence[int] | None,
) -> InputSpec:
    expected = record.input if record else architecture.input
    if isinstance(expected, (DetectionInput, SegmentationInput)):
        return fit_sized_input(expected, input_shape)
    if not isinstance(expected, ImageInput):
        return expected
    if record is not None and obtained is not None and record not in architecture.weights.values():
        expected = image_input_in(obtained.folder, expected)
    return fit_image_input(expected, input_shape)


def _build(
    architecture: Architecture,
    expected: InputSpec,
    obtained: Obtained,
    include_top: bool,
    minimum_pretrained: float,
    file: str,
) -> tuple[Parts, LoadReport]:
    """The network with the file's tensors in it; its head has as many outputs as the file's.

    It is built once, after its names and sizes were found to be those of the file without memory taken for them.
    """
    folder = str(obtained.folder) if expected.files and obtained.folder else None
    options = replace(_options(expected, architecture.outputs if include_top else 0, None), folder=folder)
    with naming(file):
        candidates = conversions(obtained.state, architecture)
        options = replace(options, state=guessed(candidates))
        names = [name for name, _ in named_tensors(sketch(architecture, options, minimum_pretrained, file))]
        state = qualify(candidates, architecture, names)
        outputs = architecture.count_outputs(state)
        if outputs is not None and options.num_classes not in (0, outputs):
            options = replace(options, num_classes=outputs)
            sketch(architecture, options, minimum_pretrained, file)
        if outputs is None:
            check_headless(names, state)
    parts = architecture.build(options)
    if outputs is None:
        parts = replace(parts, head=None)
    return parts, fill(parts, state, stem=architecture.roles["stem"])


def _options(expected: InputSpec, outputs: int, state: StateDict | None) -> BuildOptions:
    if isinstance(expected, ImageInput):
        return BuildOptions(num_classes=outputs, image_size=expected.size, channels=expected.channels, state=state)
    return BuildOptions(num_classes=outputs, state=state)


def _assembled(
    architecture: Architecture,
    parts: Parts,
    report: LoadReport,
    source: Mapping[str, Any],
    record: Weights | None,
) -> PretrainedModel:
    return PretrainedModel(
        trunk=parts.trunk,
        pool=_pool(parts, source["pooling"] or architecture.pooling, architecture),
        head=parts.head,
        feature_size=parts.feature_size,
        stages=parts.stages or architecture.stages,
        head_name=architecture.head_name,
        categories=_categories(parts, record),
        architecture=architecture,
        weights_info=record,
        load_report=report,
        source=source,
    )


def _pool(parts: Parts, pooling: str, architecture: Architecture) -> Pool:
    pool = Pool(pooling, channels_last=parts.channels_last, prefix_tokens=parts.prefix_tokens)
    if pool.mode == "cls" and not parts.channels_last:
        raise ConfigurationError(
            f"pooling='cls' takes the first token of a sequence, and {architecture.name} makes feature maps; "
            "use 'avg', 'max' or 'gem'."
        )
    return pool


def _categories(parts: Parts, record: Weights | None) -> tuple[str, ...]:
    if record is None or parts.head is None:
        return ()
    names = label_names(record.labels)
    if isinstance(parts.head, TaskHead):
        outputs = parts.head.num_outputs
    else:
        outputs = [parameter.shape[0] for parameter in parts.head.parameters()][-1]
    return names if outputs == len(names) else ()


def _as_given(record: Weights | None) -> str | None:
    if record is None:
        return None
    return record.source.path if isinstance(record.source, PathSource) else record.name


def _provenance(obtained: Obtained | None, expected: InputSpec) -> dict[str, Any]:
    """Which bytes were read: what a saved tuning compares when it finds its base again.

    configuration: the content of config.json, only where there is one that decides what is built.
    """
    file = obtained.folder / CONFIGURATION if obtained and obtained.folder else None
    read = file is not None and CONFIGURATION in expected.files and file.is_file()
    return {
        "weights_sha256": obtained.sha256 if obtained else None,
        "revision": obtained.revision if obtained else None,
        **({"configuration": read_json(file)} if read and file else {}),
    }


def _where(record: Weights) -> str:
    match record.source:
        case PathSource(path=path):
            return str(Path(path))
        case HubSource(repository=repository):
            return repository
        case _:
            return repr(record.name)
