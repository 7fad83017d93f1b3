"""Which architecture and which weights a caller means."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import ConfigurationError, LicenceError, UnknownNameError, plain_name
from ._records import ARCHITECTURES, Architecture, HubSource, PathSource, Weights
from .sources._state_dict import TORCH_SUFFIXES

DOMAINS = {"vision": "vision", "image": "vision", "nlp": "nlp", "text": "nlp", "audio": "audio"}
_HUB_NAME = re.compile(r"(?:hub:)?(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_WEIGHTS_SUFFIXES = (".safetensors", *TORCH_SUFFIXES, ".index", ".txt", ".vec", ".gz")
_UNKNOWN_LICENCE = "not stated; ask whoever gave you the file"


def find_architecture(model_name: str, domain: str | None = None) -> Architecture:
    """The architecture of that name, as people spell it; a domain that is not its own is an error."""
    architecture = ARCHITECTURES[model_name]
    if domain is not None and canonical_domain(domain) != architecture.domain:
        raise ConfigurationError(
            f"{architecture.name} is a model of domain {architecture.domain!r}, not {domain!r}; use "
            f"domain={architecture.domain!r} or leave it out."
        )
    return architecture


def canonical_domain(domain: str) -> str:
    """`text` is `nlp`, `image` is `vision`; raises UnknownNameError for anything else."""
    found = DOMAINS.get(domain.lower()) if isinstance(domain, str) else None
    if found is None:
        raise UnknownNameError("domain", domain, sorted(set(DOMAINS.values())))
    return found


def find_weights(architecture: Architecture, weights: str | os.PathLike[str] | None) -> Weights | None:
    """The record that `weights` means: a name, a hub repository, a path; None is random weights."""
    if weights is None:
        return None
    if isinstance(weights, str) and (known := _known_weights(architecture, weights)):
        return known
    if not isinstance(weights, (str, os.PathLike)):
        raise ConfigurationError(
            f"weights={weights!r} is a {type(weights).__name__}; it is a name, a path, or None for random weights."
        )
    text = os.fspath(weights)
    if isinstance(weights, os.PathLike) or _looks_like_a_path(text):
        return _record(architecture, str(weights), PathSource(str(Path(text).expanduser().absolute())))
    if match := _HUB_NAME.fullmatch(text):
        return _record(architecture, text, HubSource(match["repository"], match["revision"] or "main"))
    raise UnknownNameError(
        f"set of weights for {architecture.name} called",
        weights,
        architecture.weights,
        hint="Possible as well: a path, 'hub:owner/name@revision', or None for random weights.",
    )


def check_licence(architecture: Architecture, weights: Weights, *, accepted: bool) -> None:
    """Raise LicenceError for weights that forbid commercial use, unless the caller accepted that."""
    if weights.commercial_use or accepted:
        return
    others = ", ".join(name for name, other in architecture.weights.items() if other.commercial_use)
    raise LicenceError(
        f"The weights {weights.name!r} of {architecture.name} are under {weights.licence}, which forbids "
        "commercial use. If your use is allowed, say so with accept_licence=True; weights without this "
        f"limit: {others or 'none'}."
    )


def _known_weights(architecture: Architecture, name: str) -> Weights | None:
    if name == "default":
        return architecture.weights[architecture.default_weights]
    for key, record in architecture.weights.items():
        spellings = {plain_name(key)}
        if isinstance(record.source, HubSource):
            spellings.add(plain_name(record.source.repository))
        if plain_name(name) in spellings:
            return record
    return None


def _looks_like_a_path(text: str) -> bool:
    return text.startswith((".", "/", "~")) or text.endswith(_WEIGHTS_SUFFIXES) or Path(text).exists()


def _record(architecture: Architecture, name: str, source: HubSource | PathSource) -> Weights:
    default = architecture.weights.get(architecture.default_weights)
    return Weights(
        name=name,
        source=source,
        licence=_UNKNOWN_LICENCE,
        paper=architecture.paper,
        input=architecture.input,
        read=default.read if default else None,
    )
