"""What is known about an architecture and about each set of weights for it: frozen, declared once, never computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from torch import Tensor, nn

from ..data import Preprocess
from ..registry import Registry

StateDict: TypeAlias = "dict[str, Tensor]"


class InputSpec(Protocol):
    """What samples a set of weights was trained on: ImageInput, TextInput, …

    files: names of what else it needs from beside the weights, a tokenizer's files for instance.
    """

    @property
    def files(self) -> tuple[str, ...]:
        """See above."""
        ...

    def open(self, trunk: nn.Module, folder: Path | None, max_length: int | None) -> Preprocess | None:
        """The preprocessing of one raw sample; None where a file that it needs (a tokenizer) is not there.

        folder: where what belongs to the weights lies. max_length: the caller's, for inputs that have a length.
        """
        ...


def head_outputs(state: StateDict) -> int | None:
    """How many outputs the linear head in a file has; None when the file has no head. Names are ours."""
    weights = sorted(name for name, tensor in state.items() if name.startswith("head.") and tensor.ndim == 2)
    return state[weights[-1]].shape[0] if weights else None


@dataclass(frozen=True)
class HubSource:
    """A repository on the Hugging Face hub. `revision` is a commit where known, else a branch pinned on first use."""

    repository: str
    revision: str = "main"
    file: str = "model.safetensors"


@dataclass(frozen=True)
class UrlSource:
    """A file at an address, with the SHA-256 (or its published prefix) that it must have.

    sha256: None where the publisher states none; then the hash of the first download is pinned.
    beside: addresses of further files that reading it needs; they come to lie in its folder, pinned likewise.
    md5: where the publisher states that one alone; the first download must have it before it is pinned.
    """

    url: str
    sha256: str | None
    beside: tuple[str, ...] = ()
    md5: str | None = None


@dataclass(frozen=True)
class PackageSource:
    """A file that an installed Python package carries. `file` is a path or glob below the package's folder."""

    distribution: str
    package: str
    file: str


@dataclass(frozen=True)
class PathSource:
    """A file or a folder on this machine."""

    path: str


Source: TypeAlias = "HubSource | UrlSource | PackageSource | PathSource"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One published set of weights.

    sha256: of the file, whole or a published prefix; None where no publisher states one, then the hub's own
        content hash is checked and pinned on first download.
    convert: renames a file's keys to those of the architecture's own state dict, or to ours (`trunk.…`, `head.…`);
        None when they are the same.
    read: reads a file in a format of its own; None for safetensors and torch files.
    labels: name of the label set that the original head answers in, e.g. "imagenet-1k".
    """

    name: str
    source: Source
    licence: str
    paper: str
    input: InputSpec
    sha256: str | None = None
    commercial_use: bool = True
    labels: str | None = None
    convert: Callable[[StateDict], StateDict] | None = None
    read: Callable[[Path], StateDict] | None = None


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What a builder has to know.

    num_classes: outputs of the head; 0 for none.
    folder: holds a fetched configuration, for architectures defined by one; else None.
    state: the file's tensors under their converted names, for architectures whose sizes the file decides; None for
        random weights, which have the published sizes.
    """

    num_classes: int
    image_size: tuple[int, int] | None = None
    channels: int = 3
    folder: str | None = None
    state: StateDict | None = None


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a builder returns: the network without its head, and the head.

    trunk: inputs -> unpooled features, (n, c, h, w) or (n, tokens, c), or a tuple of maps, from the largest to the
        smallest, of which the last one is pooled. A trunk whose tokens are fewer than its inputs' has a method
        feature_mask(inputs) -> (n, tokens), 1 where a token is real.
    head: pooled features (n, feature_size) -> logits, or a TaskHead; None when the architecture has none.
    stages: the trunk's stages where a fetched configuration decides them; None for the architecture's.
    """

    trunk: nn.Module
    head: nn.Module | None
    feature_size: int
    channels_last: bool = False
    prefix_tokens: int = 0
    stages: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One architecture, e.g. resnet50: how it is built, what its parts are called, which weights exist.

    stages: names of the trunk's parts from input to output, as freeze_layers takes them.
    head_name: what the head is called in the library that the architecture comes from ("fc", "classifier"); "" where
        its parts lie beside those of the trunk ("rpn", "roi_heads").
    outputs: of the published head.
    count_outputs: how many outputs the head in a file has, by its tensors under our names; None for no head.
    roles: role -> glob of module names below the trunk, e.g. {"mlp.in": "encoder.layer.*.intermediate.dense"}.
        "mlp" is a whole feed-forward part, x -> g(x); "mlp.join" a layer that adds the residual itself,
        (h, x) -> g(h, x); "mlp.norm_after" the norm of their sum, where norms follow the residual connection.
    pooling: the pooling that the published head was trained on.
    default_weights: key in `weights` for callers who give none.
    """

    name: str
    domain: str
    tasks: tuple[str, ...]
    build: Callable[[BuildOptions], Parts]
    input: InputSpec
    stages: tuple[str, ...]
    head_name: str
    pooling: str
    paper: str
    licence: str
    weights: Mapping[str, Weights] = field(default_factory=dict)
    default_weights: str = "imagenet"
    outputs: int = 1000
    count_outputs: Callable[[StateDict], int | None] = head_outputs
    roles: Mapping[str, str] = field(default_factory=dict)


ARCHITECTURES: Registry[Architecture] = Registry(
    "model", hint="neurenix.transfer.list_models() lists all; domain= and task= narrow it."
)
