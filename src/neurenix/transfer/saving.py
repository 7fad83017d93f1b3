"""A tuned model on disk: what changed against its base, and everything that is needed to use it.

A folder with `neurenix.json` (the manifest: base, head, label names, preprocessing, settings, hashes), one
safetensors file named by its content, and the tokenizer of a text model. The manifest is replaced last and
names the tensor file by hash, so a kill at any moment leaves the previous tuning or the new one, never a mix.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .._version import __version__
from ..data import PREPROCESSES
from ..errors import ConfigurationError, DamagedFileError, WeightsMismatchError
from ..models import PretrainedModel, adopt
from ..models.fingerprint import key
from ..nn import BASE_LAYER, TaskHead, VectorHead
from ..storage import (
    check_hash,
    file_sha256,
    inside,
    read_json,
    read_tensors,
    sweep,
    tensor_digest,
    write_json,
    write_tensors,
)
from ..training import MODEL_FOLDER, RUN_FILE
from .heads._attach import put_on
from .heads._kind import begun, kind_from
from .labels import contract_of
from .pretrained import load_pretrained_model, rebuild_model

MANIFEST = "neurenix.json"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class SavedTuning:
    """What a saved folder holds: the base model, rebuilt, and what has to be put into it.

    settings: the tuner's own arguments. tensors: everything that differs from the base. options: of the head.
    """

    base: PretrainedModel
    settings: dict[str, Any]
    tensors: dict[str, Tensor]
    options: dict[str, Any]
    head_record: dict[str, Any] | None
    categories: tuple[str, ...]
    labels: dict[str, Any] | None
    history: list[dict[str, Any]]
    complete: bool

    def put_into(self, model: PretrainedModel) -> None:
        """Give `model` (the base with the tuner's head on it) the saved tensors and label names."""
        if isinstance(model.head, (TaskHead, VectorHead)):
            own = {name.removeprefix("head."): part for name, part in self.tensors.items() if name.startswith("head.")}
            model.replace_head(model.head.for_saved(own))
        if isinstance(model.head, TaskHead):
            _set_options(model.head, self.options)
        try:
            missing, unexpected = model.load_state_dict(self.tensors, strict=False)
        except RuntimeError as error:  # torch's word for tensors of another shape
            reason = str(error).splitlines()[-1].strip()
            raise WeightsMismatchError(f"{model.name} is not the module that was tuned: {reason}") from error
        lost = [name for name in missing if self.complete or name.startswith("head.")]
        if unexpected or lost:
            raise WeightsMismatchError(
                f"{model.name} is not the module that was tuned: of the saved tensors it has no place for "
                f"{list(unexpected)[:3]}, and it needs {lost[:3]}, which were not saved."
            )
        model.categories = self.categories
        model.head_record = begun(self.head_record) if self.history else self.head_record
        found = json.loads(json.dumps(asdict(contract_of(model))))
        if self.labels not in (None, found):
            raise DamagedFileError(
                f"the saved model's answers mean {self.labels}, and its head and names say {found}; the manifest was "
                "changed. Restore it from a copy."
            )


def base_digests(model: PretrainedModel) -> dict[str, str]:
    """Digest of every tensor of a model's state, to find later what changed."""
    return {name: tensor_digest(tensor) for name, tensor in model.state_dict().items()}


def is_as_loaded(model: PretrainedModel, digests: Mapping[str, str]) -> bool:
    """Whether the model's trunk is still what its source gives. digests: as base_digests gives them."""
    own = {name.removeprefix("trunk."): digest for name, digest in digests.items() if name.startswith("trunk.")}
    return model.loaded is not None and key(own) == model.loaded


def base_name(name: str) -> str:
    """The name that a tensor had in the base, before methods put layers of their own around those of the model."""
    return ".".join(part for part in name.split(".") if part != BASE_LAYER)


def save_tuning(
    folder: Path,
    model: PretrainedModel,
    base: Mapping[str, str],
    *,
    kind: str,
    settings: Mapping[str, Any],
    history: list[dict[str, Any]],
    standalone: bool = False,
) -> None:
    """Write a tuning. base: digests of the base's tensors; settings: the tuner's arguments; standalone: all tensors.

    Where the base cannot be had again (random weights, a module of the user's own) all tensors are written.
    """
    whole = standalone or not _reproducible(model)
    tensors = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if whole or name.startswith("head.") or tensor_digest(tensor) != base.get(name)
    }
    with _naming_places(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = model.preprocess.save(folder) if hasattr(model.preprocess, "save") else None
        temporary_name = "weights.safetensors"
        sha256 = write_tensors(folder / temporary_name, tensors)
        file = f"weights-{sha256[:16]}.safetensors"
        (folder / temporary_name).replace(folder / file)
    manifest = {
        "format": _FORMAT,
        "neurenix": __version__,
        "kind": kind,
        "base": dict(model.source) if model.source else None,
        "licence": model.weights_info.licence if model.weights_info else None,
        "categories": list(model.categories),
        "labels": asdict(contract_of(model)),
        "head": _options(model.head),
        "head_record": None if model.head_record is None else dict(model.head_record),
        "preprocess": model.preprocess.to_json() if model.preprocess is not None else None,
        "tokenizer": tokenizer,
        "tensors": {"file": file, "sha256": sha256, "complete": whole, "changed": sorted(tensors)},
        "settings": dict(settings),
        "history": history,
    }
    write_json(folder / MANIFEST, manifest)
    sweep(folder)
    for stale in folder.glob("weights*.safetensors"):
        if stale.name != file:
            stale.unlink(missing_ok=True)


@contextlib.contextmanager
def _naming_places(folder: Path) -> Iterator[None]:
    """Raise ConfigurationError for a place that no folder can be written to."""
    try:
        yield
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise ConfigurationError(
            f"nothing can be saved to {folder}: {os.strerror(error.errno or 0)} ({error.filename}). Give a folder that "
            "can be written, new or one that save() wrote."
        ) from error


def _options(head: nn.Module) -> dict[str, Any]:
    """The settings of a head that its user may have changed."""
    names = head.options if isinstance(head, TaskHead) else ()
    return {name: getattr(head, name) for name in names}


def _set_options(head: TaskHead, values: Mapping[str, Any]) -> None:
    """What _options gave; names that the head has no setting of, in files of another version, are passed over."""
    for name in set(head.options) & set(values):
        setattr(head, name, values[name])


def saved_folder(path: Path) -> Path:
    """Where the tuning lies: the folder itself, or the model in the folder of a finished run."""
    return path / MODEL_FOLDER if (path / RUN_FILE).is_file() else path


def read_manifest(folder: Path, kind: str | None = None) -> dict[str, Any]:
    """The checked manifest of a saved tuning. kind: of the tuner that reads it; None for any."""
    wanted = kind or "tuner"
    if not (folder / MANIFEST).is_file() and (folder.parent / RUN_FILE).is_file():
        raise ConfigurationError(
            f"the run {folder.parent} is not finished, so it holds no tuned model yet; call fit again to go on with it."
        )
    if not (folder / MANIFEST).is_file():
        raise ConfigurationError(
            f"{folder} holds no {MANIFEST}, so it is not a saved {wanted}; give the folder that save() was given."
        )
    manifest = read_json(folder / MANIFEST)
    known = isinstance(manifest, dict) and manifest.get("format") == _FORMAT
    if not known or kind not in (None, manifest.get("kind")):
        found = manifest.get("kind") if isinstance(manifest, dict) else type(manifest).__name__
        raise DamagedFileError(f"{folder / MANIFEST} describes {found!r}, not a {wanted} of format {_FORMAT}.")
    return manifest


def verify_tuning(folder: Path) -> None:
    """Raise what loading would raise because of the files in a saved tuning's folder; the base is not looked at."""
    manifest = read_json(folder / MANIFEST)
    try:
        _saved_tensors(inside(folder, manifest["tensors"]["file"]), manifest["tensors"]["sha256"])
        tokenizer = manifest["tokenizer"]
        if tokenizer is not None:
            file = inside(folder, tokenizer["file"])
            check_hash(file, file_sha256(file), tokenizer["sha256"])
    except (KeyError, TypeError) as error:
        raise DamagedFileError(f"{folder / MANIFEST} describes no saved model: {error} is missing.") from error


def load_tuning(folder: Path, kind: str, *, module: nn.Module | None, device: str) -> SavedTuning:
    """Read a tuning and rebuild its base, checking every hash. module: the user's own, for tunings of one."""
    folder = saved_folder(folder)
    manifest = read_manifest(folder, kind)
    tensors = _saved_tensors(inside(folder, manifest["tensors"]["file"]), manifest["tensors"]["sha256"])
    base = _rebuild_base(manifest, tensors, module, device)
    if manifest["preprocess"] is not None:
        base.preprocess = _rebuild_preprocess(manifest["preprocess"], folder)
    if manifest.get("head_record") is not None and manifest["settings"].get("head") is None:
        put_on(base, kind_from(manifest["head_record"]), seed=0)  # attached before it was tuned
    return SavedTuning(
        base=base,
        settings=manifest["settings"],
        tensors=tensors,
        options=manifest.get("head", {}),
        head_record=manifest.get("head_record"),
        categories=tuple(manifest["categories"]),
        labels=manifest.get("labels"),
        history=manifest["history"],
        complete=manifest["tensors"]["complete"],
    )


def _saved_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    try:
        return read_tensors(path, sha256=sha256)
    except (DamagedFileError, FileNotFoundError) as error:
        state = "is missing" if isinstance(error, FileNotFoundError) else "does not have the SHA-256 that save() noted"
        raise DamagedFileError(
            f"{path} {state}: the tuned weights are damaged. Restore the folder from a copy, or tune again."
        ) from error


def _rebuild_base(
    manifest: Mapping[str, Any], tensors: Mapping[str, Tensor], module: nn.Module | None, device: str
) -> PretrainedModel:
    base = manifest["base"]
    if base is None:
        if module is None:
            raise ConfigurationError(
                "this tuning is of a module of your own, which only your code can build: load(path, model=YOUR_MODULE)."
            )
        return adopt(module)
    if manifest["tensors"]["complete"]:
        plain = {base_name(name): tensor for name, tensor in tensors.items()}
        return rebuild_model(base, plain, keeps_head=_keeps_head(manifest), device=device)
    wanted = base["weights_sha256"]
    model = load_pretrained_model(
        model_name=base["model_name"],
        weights=base["weights"],
        input_shape=tuple(base["input_shape"]) if base["input_shape"] else None,
        include_top=base["include_top"],
        pooling=base["pooling"],
        max_length=base["max_length"],
        minimum_pretrained=base["minimum_pretrained"],
        accept_licence=base["accept_licence"],
        device=device,
    )
    found = (model.source or {}).get("weights_sha256")
    if found != wanted:
        raise WeightsMismatchError(
            f"this tuning was made on weights with SHA-256 {wanted}, but {base['weights']!r} of "
            f"{base['model_name']} now has {found}. Provide the original weights, or save with standalone=True."
        )
    return model


def _keeps_head(manifest: Mapping[str, Any]) -> bool:
    """Whether the saved head is the one that the base was loaded with."""
    return manifest["settings"]["num_classes"] is None and manifest.get("head_record") is None


def _rebuild_preprocess(values: Mapping[str, Any], folder: Path) -> Any:
    if values.get("kind") not in PREPROCESSES:
        known = ", ".join(PREPROCESSES)
        raise DamagedFileError(
            f"{folder / MANIFEST} describes preprocessing of kind {values.get('kind')!r}; known: {known}."
        )
    return PREPROCESSES[values["kind"]].from_json(values, folder)


def _reproducible(model: PretrainedModel) -> bool:
    return bool(model.source and model.source.get("weights_sha256"))
