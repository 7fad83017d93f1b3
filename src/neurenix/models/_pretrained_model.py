"""The one kind of model that every transfer method works on: trunk, pool, head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from ..errors import ConfigurationError, InputMismatchError
from ..nn import Pool, TaskHead, as_tokens
from ..vision import ImageInput
from ._edit_log import EditLog
from ._load_report import LoadReport
from ._reading import outputs_of_layers
from ._records import Architecture, Parts, Weights

Inputs = Tensor | Mapping[str, Tensor]


@final
class PretrainedModel(nn.Module):
    """`head(pool(trunk(inputs)))`, with everything that belongs to its weights attached.

    inputs: a tensor (images (n, channels, height, width)) or a mapping of tensors (tokens with their mask).
    trunk: inputs -> unpooled features; `pool`: -> (n, feature_size); `head`: -> (n, outputs), Identity if none. A
        TaskHead says itself what it reads: head(read(inputs), inputs).
    stages: names of the trunk's parts from input to output, accepted wherever layers are named.
    preprocess: one raw sample (image, text) -> what the trunk reads; belongs to the weights and is saved with them.
    categories: names of the head's outputs, in order; empty when there is no head or no names are known.
    source: how load_pretrained_model made this model, so that a saved tuning can find its base again; None for
        a module of the user's own.
    loaded: digest of the trunk as it was loaded; one that was trained since cannot be had again from its source.
    edits: what transfer.surgery and input adaptation did to it since; saved with it and done again by loading.
    head_record: kind and settings of a head that was attached, as JSON values, by which it can be built again; None for
        one that was loaded, or is a plain network of linear layers.
    """

    edits: EditLog | None = None

    def __init__(
        self,
        *,
        trunk: nn.Module,
        pool: Pool,
        head: nn.Module | None,
        feature_size: int,
        stages: Sequence[str],
        head_name: str = "head",
        preprocess: Any = None,
        categories: Sequence[str] = (),
        architecture: Architecture | None = None,
        weights_info: Weights | None = None,
        load_report: LoadReport | None = None,
        source: Mapping[str, Any] | None = None,
        loaded: str | None = None,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.pool = pool
        self.head = nn.Identity() if head is None else head
        self.feature_size = feature_size
        self.stages = tuple(stages)
        self.head_name = head_name
        self.preprocess = preprocess
        self.categories = tuple(categories)
        self.architecture = architecture
        self.weights_info = weights_info
        self.load_report = load_report
        self.source = source
        self.loaded = loaded
        self.head_record: Mapping[str, Any] | None = None

    @property
    def domain(self) -> str:
        """`vision`, `nlp`, `audio`, or `custom` for a module of the user's own."""
        return self.architecture.domain if self.architecture else "custom"

    @property
    def name(self) -> str:
        """The architecture's name, or the class of a user's own module."""
        own = self.trunk.module if isinstance(self.trunk, _OpenTrunk) else self.trunk
        return self.architecture.name if self.architecture else type(own).__name__

    def features(self, inputs: Inputs) -> Any:
        """Unpooled features: (n, channels, height, width) of a CNN, (n, tokens, channels) of a transformer.

        Trunks of detectors and segmenters give several maps, a tuple from the largest to the smallest.
        """
        return self.trunk(self._entering(inputs))

    def embed(self, inputs: Inputs) -> Tensor:
        """Pooled features, (n, feature_size); what a head reads that is no TaskHead, or one that reads a vector."""
        mask = self._mask(inputs)
        features = self.trunk(self._entering(inputs))
        features = features[-1] if isinstance(features, tuple) else features
        if not _autocasts(features):
            return self.pool(features, mask)
        like = next(self.parameters(), features)
        with torch.autocast(features.device.type, enabled=False):
            return self.pool(features.to(like.dtype), mask)

    def tokens(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Tokens, or the places of a map row by row, (n, tokens, channels), and which of them are real, (n, tokens).

        Class tokens and the like are left out. Raises InputMismatchError for a network that gives one vector.
        """
        mask, features = self._mask(inputs), self.trunk(self._entering(inputs))
        features = features[-1] if isinstance(features, tuple) else features
        if features.ndim < 3:
            raise InputMismatchError(
                f"{self.name} gives one vector for each sample, {tuple(features.shape)}, and the head reads tokens "
                "(n, tokens, channels); take a network that gives them."
            )
        is_own = self.architecture is None  # what entered a linear layer has its channels last
        tokens = as_tokens(features, self.pool.channels_last or is_own)[:, self.pool.prefix_tokens :]
        if mask is None:
            return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return tokens, mask[:, self.pool.prefix_tokens :].bool()

    def read(self, inputs: Inputs) -> Any:
        """What the head reads: pooled features; of a TaskHead, what it asks for.

        Raises ConfigurationError where a layer that it reads is not run, or run twice.
        """
        if not isinstance(self.head, TaskHead) or self.head.reads == "vector":
            return self.embed(inputs)
        if self.head.reads == "tokens":
            return self.tokens(inputs)
        entering = self._entering(inputs)
        return outputs_of_layers(self.trunk, self.head.layers, entering) if self.head.layers else self.trunk(entering)

    def forward(self, inputs: Inputs, targets: Any = None) -> Any:
        """Logits or values (n, outputs) with a head; pooled features (n, feature_size) without one.

        A TaskHead answers with what its own docstring says, or, where there are targets, with its losses. Autocast
        ends at the trunk: bfloat16 has three digits, so a value such as 1003.7 could not come out of a head.
        """
        if isinstance(self.head, TaskHead):
            features = self.read(inputs)
            return self.head(features, inputs) if targets is None else self.head.losses(features, inputs, targets)
        features = self.embed(inputs)
        if not _autocasts(features):
            return self.head(features)
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features)

    def _entering(self, inputs: Inputs) -> Inputs:
        """What the trunk reads: the images of a batch with their sizes, where it was made for images alone."""
        alone = self.architecture is None or isinstance(self.architecture.input, ImageInput)
        is_sized = isinstance(inputs, Mapping) and "images" in inputs and "image_sizes" in inputs
        return cast("Mapping[str, Tensor]", inputs)["images"] if alone and is_sized else inputs

    def _mask(self, inputs: Inputs) -> Tensor | None:
        """(n, tokens), 1 where the trunk's features are those of a real token; None where all are."""
        if hasattr(self.trunk, "feature_mask"):
            return cast(Any, self.trunk).feature_mask(inputs)
        return inputs.get("attention_mask") if isinstance(inputs, Mapping) else None

    def replace_head(
        self, head: nn.Module, categories: Sequence[str] = (), record: Mapping[str, Any] | None = None
    ) -> None:
        """Put another head in place, on the device and in the dtype of the old parameters. record: see head_record."""
        reads_vector = not isinstance(head, TaskHead) or head.reads == "vector"
        if self.pool.mode == "none" and self.architecture is not None and reads_vector:
            raise ConfigurationError(
                "this model was loaded with pooling='none', so it gives feature maps and a head cannot follow; "
                f"load it with pooling={self.architecture.pooling!r}."
            )
        like = next(self.trunk.parameters(), None)
        self.head = head if like is None else head.to(device=like.device, dtype=like.dtype)
        self.categories = tuple(categories)
        self.head_record = record


def _autocasts(features: Tensor) -> bool:
    """Whether autocast is on where these features are; on the meta device nothing is computed."""
    kind = features.device.type
    return kind != "meta" and torch.is_autocast_enabled(kind)


def new_model(architecture: Architecture, parts: Parts, preprocess: Any = None) -> PretrainedModel:
    """An architecture's network of one's own sizes, as load_pretrained_model would put it together.

    preprocess: None is the architecture's own.
    """
    return PretrainedModel(
        trunk=parts.trunk,
        pool=Pool(architecture.pooling, channels_last=parts.channels_last, prefix_tokens=parts.prefix_tokens),
        head=parts.head,
        feature_size=parts.feature_size,
        stages=parts.stages or architecture.stages,
        head_name=architecture.head_name,
        preprocess=preprocess or architecture.input.open(parts.trunk, None, None),
        architecture=architecture,
    ).eval()


def adopt(module: Any, *, head: str | None = None) -> PretrainedModel:
    """Make a PretrainedModel of any torch module by taking its last linear layer out as the head.

    head: the head's module name, for modules whose last linear layer is not it.
    The layer has to be the last thing that the module computes; the first forward pass checks it.
    """
    if isinstance(module, PretrainedModel):
        return module
    if isinstance(module, str):
        raise ConfigurationError(f"{module!r} is a model's name; load it first: load_pretrained_model({module!r}).")
    if not isinstance(module, nn.Module):
        shown = f"the class {module.__name__}" if isinstance(module, type) else f"of type {type(module).__name__}"
        raise ConfigurationError(f"the model is {shown}; give a torch module, or what load_pretrained_model gave.")
    name, linear = _find_head(module, head)
    outlet = _Outlet()
    module.set_submodule(name, outlet)
    return PretrainedModel(
        trunk=_OpenTrunk(module, outlet, name),
        pool=Pool("none"),
        head=linear,
        feature_size=linear.in_features,
        stages=[child for child, _ in module.named_children() if child != name.split(".")[0] or "." in name],
        head_name=name,
    )


def _find_head(module: nn.Module, head: str | None) -> tuple[str, nn.Linear]:
    linear = {name: layer for name, layer in module.named_modules() if name and isinstance(layer, nn.Linear)}
    if head is not None and head in linear:
        return head, linear[head]
    if head is not None or not linear:
        raise ConfigurationError(
            f"{type(module).__name__} has no linear layer {head or ''!r} to take as its head; it has: "
            f"{', '.join(linear) or 'no nn.Linear at all'}. Name it with adopt(module, head=…)."
        )
    return list(linear.items())[-1]


@final
class _Outlet(nn.Module):
    """Stands where the head was and remembers what would have entered it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Tensor | None = None  # set in forward, taken out right after

    def forward(self, features: Tensor) -> Tensor:
        self.seen = features
        return features


@final
class _OpenTrunk(nn.Module):
    """A user's module with its head taken out; checks that nothing follows the head.

    Numbers come in the type of the module's weights, whatever they were stored as; where it has embeddings, whole
    numbers are places in them and stay whole.
    """

    def __init__(self, module: nn.Module, outlet: _Outlet, head: str) -> None:
        super().__init__()
        self.module = module
        self._outlet = [outlet]  # in a list, so that it is not registered a second time
        self._head = head
        self._has_embeddings = any(isinstance(part, (nn.Embedding, nn.EmbeddingBag)) for part in module.modules())

    def forward(self, inputs: Inputs) -> Tensor:
        features = self.module(self._cast(inputs))
        seen, self._outlet[0].seen = self._outlet[0].seen, None
        if seen is None or features is not seen:
            raise InputMismatchError(
                f"{type(self.module).__name__} computes something after its layer {self._head!r}, so that layer is "
                "not its head. Return the layer's output from forward(), or name the head with adopt(module, head=…)."
            )
        return features

    def _cast(self, inputs: Inputs) -> Inputs:
        if isinstance(inputs, Mapping):
            return {name: cast("Tensor", self._cast(tensor)) for name, tensor in inputs.items()}
        like = next((parameter for parameter in self.module.parameters() if parameter.is_floating_point()), None)
        whole = not inputs.is_floating_point()
        if like is None or inputs.is_complex() or (whole and self._has_embeddings):
            return inputs
        return inputs.to(like.dtype)
