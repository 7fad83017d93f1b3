"""A pretrained model as a fixed function from samples to vectors."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from ...backends import Forward, check_backend, fast_forward, named
from ...data import Batch, work
from ...devices import Precision, autocast, is_exact, resolve_device, resolve_precision, same_sample
from ...errors import ConfigurationError, EmptyDatasetError
from ...memory import kept_memory
from ...models._pretrained_model import PretrainedModel
from ...nn import Pool, evaluating
from . import fingerprint, samples, taps
from .cache import CachedFeatures, Plan, check_storage, fill
from .layouts import Layout, detect, reference_of
from .progress import Progress
from .rows import Rows, check_widths, collect, joined, renumbered
from .selection import FeatureSelector
from .taps import Inputs, Tap


@final
class FeatureExtractor:
    """What chosen layers of a frozen model give, pooled and joined into one vector per sample.

    model: a PretrainedModel or any torch module. It is not changed: no gradients, no statistics, its modes
        are restored and hooks live only during a call. Only `device`, when given, moves it, as
        `model.to(device)` does.
    layers: names or wildcards (`"layer1"`, `"blocks.*"`); a wildcard takes the outermost layers that it
        matches. None: what enters the head of a PretrainedModel, or the output of another module.
    pooling: "avg" ("mean"), "max", "gem", "cls", "last" or "none". None: the model's own pooling where it
        belongs to what is read (layers=None), else "avg". Attention masks in the inputs are respected, and
        prefix tokens (a ViT's class token) are left out by all but "cls" and "none".
    flatten: True: one matrix (n, sum of widths), see `columns`; unpooled maps (n, c, h, w) become (n, c*h*w).
        False: a dict of layer -> tensor in its own shape.
    normalize: scale each layer's part of each sample to length 1 (all of a map together); zeros stay zeros.
    precision: "fp32" by default, so that features agree between machines; "bf16", "fp16" or "auto" compute
        faster and less exactly. Features are float32 in any case (float64 for a float64 model).
    backend: what runs the model over datasets in `extract` and `cache_features`: "auto" takes the fastest that is
        installed, by a measurement, where there are seconds to win and the features agree with eager torch to
        what `precision` promises; "eager"; or one of neurenix.backends.BACKENDS.
    channels_last: layout of outputs with three dimensions and more. None detects it: convolutions give (n, c,
        …), linear layers and layer norms (n, …, c); else 3-d is (n, tokens, c) and 4-d NCHW, or NHWC where a
        model says so.

    columns: after the first call, layer -> slice of the matrix's columns.

    The forward pass ends after the last layer that is read.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str] | str | None = None,
        pooling: str | None = None,
        flatten: bool = True,
        normalize: bool = False,
        device: str | torch.device | None = None,
        precision: Precision = "fp32",
        channels_last: bool | None = None,
        backend: str = "auto",
    ) -> None:
        self.model = getattr(model, "_orig_mod", model)  # hooks do not fire inside a compiled module
        self.taps, own_pooling = _taps(self.model, layers, pooling)
        self.pooling = Pool("none" if own_pooling else pooling or "avg").mode
        self.flatten = flatten
        self.normalize = normalize
        self.channels_last = channels_last
        if device is not None:
            self.model.to(resolve_device(device))
        self.precision = resolve_precision(precision, self.device, self.model)
        self.exact = is_exact(precision, self.device)
        self.backend = check_backend(backend)
        self.columns: dict[str, slice] = {}
        self.selector: FeatureSelector | None = None
        self._layouts: dict[str, Layout] | None = None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return _device_and_dtype(self.model)[0]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that are read, in the order of their columns."""
        return tuple(tap.name for tap in self.taps)

    def __call__(self, inputs: Any) -> Tensor | dict[str, Tensor]:
        """Features of a tensor batch, a dict of tensors, or raw data, on the model's device.

        Raw data (an image, a path, a text, a list of these, a dataset) goes through the model's
        preprocessing; a single sample gives one row.
        """
        batch = samples.as_inputs(inputs)
        if batch is not None:
            samples.check(batch, self.model)
            return self._finish(self._read(batch))
        dataset = samples.prepared(samples.as_dataset(inputs, self.model), self.model)
        parts = [self._read(batch.inputs) for batch in samples.loader(dataset, self.model) if len(batch)]
        if not parts:
            raise EmptyDatasetError("none of the given samples could be read, so there are no features.")
        for name in self.layers:
            check_widths([part[name] for part in parts])
        return self._finish({name: torch.cat([part[name] for part in parts]) for name in self.layers})

    @kept_memory()
    def extract(
        self, dataset: Any, batch_size: int = 32, num_workers: int = 0, progress: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Features (n, d) and targets (n, …) of a dataset, on the CPU; targets are None for unlabelled data."""
        self._check_matrix()
        prepared = samples.prepared(samples.as_dataset(dataset, self.model), self.model)
        with Progress("features", samples.length(prepared), shown=progress) as shown:
            batches = samples.loader(prepared, self.model, batch_size, num_workers)
            rows = joined([collect(batches, self._forward_for(prepared), shown)])
        return rows.features, rows.targets

    @kept_memory()
    def cache_features(
        self,
        dataset: Any,
        batch_size: int = 32,
        num_workers: int = 0,
        cache_dir: str | Path = "./feature_cache",
        shard_size: int = 1024,
        dtype: str = "float32",
        cache_key: str | None = None,
        progress: bool = True,
    ) -> CachedFeatures:
        """Compute a dataset's features once; later calls, also of other processes, read them from `cache_dir`.

        They are read back only if nothing changed that could change them: weights, buffers, the model's code, the
        settings here, the content and order of samples, labels, preprocessing, library versions. On top, a few
        samples are computed anew and compared. An interrupted call goes on at the first missing shard, and a damaged
        shard is named in a warning and computed again.

        shard_size: samples per file. dtype: how features are stored, "float32", "float16" or "bfloat16".
        cache_key: your own name for the state of dataset and transforms, for data that cannot be described
            (random transforms) or is slow to read. You have to change it whenever they change.
        """
        self._check_matrix()
        check_storage(dtype, shard_size)
        raw = samples.as_dataset(dataset, self.model)
        prepared = samples.prepared(raw, self.model)
        count = samples.length(prepared)
        description = self._description(dtype, fingerprint.data_digest(prepared, count, num_workers, cache_key))
        plan = Plan(
            folder=Path(cache_dir) / fingerprint.key(description)[:32],
            description=description,
            count=count,
            shard_size=shard_size,
            dtype=dtype,
            classes=tuple(getattr(raw, "classes", None) or ()),
            tolerance=None if cache_key is not None else _tolerance(dtype, self.exact, self.device),
        )

        features_of = self._forward_for(prepared)

        def compute(places: Sequence[int], shown: Progress, way: Callable[[Batch], Tensor] = features_of) -> Rows:
            batches = samples.loader(samples.part(prepared, places), self.model, batch_size, num_workers)
            return renumbered(collect(batches, way, shown), places)

        def check(places: Sequence[int], shown: Progress) -> Rows:  # a few: not worth a backend, nor to set one up by
            return compute(places, shown, lambda batch: self._join(self._read(batch.inputs)))

        cached = fill(plan, compute, check, lambda: self.columns, progress)
        self.columns = dict(cached.columns)
        return cached

    def select(self, selector: FeatureSelector) -> FeatureExtractor:
        """The same extractor giving only the columns that a fitted selector chose."""
        if not self.flatten or self.selector is not None:
            raise ConfigurationError("select() takes columns of one whole matrix: use an extractor with flatten=True.")
        selector.check_fitted()
        chosen = copy.copy(self)
        chosen.selector, chosen.columns = selector, {}
        return chosen

    def _description(self, dtype: str, data: dict[str, Any]) -> dict[str, Any]:
        """Everything that the features depend on, as fingerprint.key takes it."""
        settings = {
            "layers": [[tap.name, tap.module] for tap in self.taps],
            "pooling": self.pooling,
            "normalize": self.normalize,
            "channels_last": self.channels_last,
            "precision": self.precision,
            "exact": self.exact,
            "device": self.device.type,
            "columns": None if self.selector is None else self.selector.indices.tolist(),
            "dtype": dtype,
        }
        return {
            "format": fingerprint.FORMAT,
            "settings": settings,
            "model": fingerprint.model_digest(self.model, self.taps),
            "data": data,
            "versions": fingerprint.versions(),
        }

    @torch.no_grad()
    def _read(self, inputs: Inputs) -> dict[str, Tensor]:
        """Pooled and scaled output of each layer, in float32 or float64."""
        device, dtype = _device_and_dtype(self.model)
        inputs = taps.cast(inputs, device, dtype)
        with evaluating(self.model), autocast(device, self.precision):
            self._layouts = self._layouts or self._survey(taps.first_sample(inputs))
            return self.read_prepared(inputs)

    def read_prepared(self, inputs: Inputs) -> dict[str, Tensor]:
        """Pooled and scaled output of each layer for a batch that is on the model's device, in the mode it is in."""
        layouts, count = self._layouts or {}, taps.batch_size(inputs)
        mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None

        def reader(tap: Tap, module: nn.Module, output: Any) -> Tensor:
            tensor = _checked(tap.name, taps.first_tensor(tap.name, output), count)
            return _vector(tensor, self.pooling, layouts[tap.name], mask, self.normalize)

        stop = taps.may_stop(self.model) and not torch.compiler.is_compiling()  # exporters want to see calls return
        return taps.read(self.model, inputs, self.taps, reader, stop=stop)

    @torch.no_grad()
    def _surveyed(self, inputs: Inputs) -> dict[str, Layout]:
        with autocast(self.device, self.precision):
            return self._survey(taps.first_sample(inputs))

    def _survey(self, one: Inputs) -> dict[str, Layout]:
        """Run one sample all the way, to see that each layer is called once and how its output is laid out."""
        reference = reference_of(self.model)
        extra = () if reference.module is None else (Tap("\0trunk", reference.module),)

        def reader(tap: Tap, module: nn.Module, output: Any) -> tuple[nn.Module, Tensor]:
            return module, taps.first_tensor(tap.name, output)

        seen = taps.read(self.model, one, (*self.taps, *extra), reader, stop=False)
        trunk_output = seen.pop("\0trunk")[1] if extra else None
        found = {name: detect(module, output, reference, trunk_output) for name, (module, output) in seen.items()}
        if self.channels_last is None:
            return found
        return {name: Layout(self.channels_last, layout.prefix_tokens) for name, layout in found.items()}

    def _finish(self, read: Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
        return self._join(read) if self.flatten else dict(read)

    def _join(self, read: Mapping[str, Tensor]) -> Tensor:
        """(n, sum of widths), or the selected columns of it; sets `columns`."""
        parts = {name: tensor.flatten(1) for name, tensor in read.items()}
        matrix = torch.cat(list(parts.values()), dim=1)
        edges = torch.tensor([0] + [part.shape[1] for part in parts.values()]).cumsum(0)
        if self.selector is not None:
            matrix = self.selector.transform(matrix)
            edges = torch.searchsorted(self.selector.indices, edges)
        self.columns = {name: slice(int(edges[i]), int(edges[i + 1])) for i, name in enumerate(parts)}
        return matrix

    def _forward_for(self, dataset: Any) -> Callable[[Batch], Tensor]:
        """Features of a batch, by the backend that is fastest for a whole dataset."""
        forward: Forward | None = None

        def features_of(batch: Batch) -> Tensor:
            nonlocal forward
            with evaluating(self.model):
                inputs = taps.cast(batch.inputs, *_device_and_dtype(self.model))
                if forward is None:
                    self._layouts = self._layouts or self._surveyed(inputs)
                    forward = fast_forward(
                        _Reading(self, self.model),
                        inputs,
                        samples=work(dataset, inputs),
                        precision=self.precision,
                        exact=self.exact,
                        backend=self.backend,
                        say=_say,
                    )
                return self._join(named(forward(inputs)))

        return features_of

    def _check_matrix(self) -> None:
        if not self.flatten:
            raise ConfigurationError("a dataset's features are one matrix: use an extractor with flatten=True.")


@final
class _Reading(nn.Module):
    """An extractor's forward pass as a module, which a backend can build."""

    def __init__(self, extractor: FeatureExtractor, model: nn.Module) -> None:
        super().__init__()
        self.model = model  # so that its weights are found
        self._read = extractor.read_prepared
        self.training = False

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        return self._read(inputs)


def _say(message: str) -> None:
    print(f"neurenix: {message}", file=sys.stderr)  # beside the progress bar


def _taps(model: nn.Module, layers: Sequence[str] | str | None, pooling: str | None) -> tuple[tuple[Tap, ...], bool]:
    """The places to read, and whether what they give has been pooled by the model itself."""
    if layers is not None:
        names = [layers] if isinstance(layers, str) else list(layers)
        if not names:
            raise ConfigurationError(
                "layers=[] reads nothing; name a layer, or leave layers out for the last features."
            )
        return taps.find_taps(model, names), False
    if not isinstance(model, PretrainedModel):
        return (Tap("output", ""),), False
    own = pooling is None
    return (Tap("features", "pool" if own else "trunk"),), own


def _vector(output: Tensor, mode: str, layout: Layout, mask: Tensor | None, normalize: bool) -> Tensor:
    """One layer's output (n, …), pooled, in float32 or float64, with each sample scaled to length 1 if asked.

    A copy in any case: the layer after this one may work in place.
    """
    exact = output if output.dtype == torch.float64 else output.float()
    exact = exact if exact.ndim > 1 else exact.unsqueeze(1)
    is_sequence = exact.ndim == 3 and layout.channels_last
    fitting = mask if mask is not None and is_sequence and mask.shape == exact.shape[:2] else None
    pool = Pool(mode, channels_last=layout.channels_last, prefix_tokens=layout.prefix_tokens)
    with torch.autocast(output.device.type, enabled=False):
        pooled = pool(exact, fitting)
    if not normalize:
        return pooled.clone()
    length = pooled.flatten(1).norm(dim=1).clamp(min=torch.finfo(pooled.dtype).tiny)
    return pooled / length.view(-1, *[1] * (pooled.ndim - 1))


def _checked(name: str, output: Tensor, count: int) -> Tensor:
    if output.ndim == 0 or output.shape[0] != count:
        raise ConfigurationError(
            f"layer {name!r} gives shape {tuple(output.shape)} for {count} samples, so its rows are not samples "
            "(windows, or time first); name the block around it."
        )
    return output


def _device_and_dtype(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where the model is, and the dtype that its floating point inputs need."""
    tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
    return (tensors[0].device, tensors[0].dtype) if tensors else (torch.device("cpu"), torch.float32)


def _tolerance(dtype: str, exact: bool, device: torch.device) -> float:
    """How far the same sample's features may differ between two runs: other batches, other kernels and backends."""
    return max(same_sample(exact, device), 0.0 if dtype == "float32" else 3e-2)
