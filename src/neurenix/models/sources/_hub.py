"""Weights in a repository on the Hugging Face hub, pinned to one commit and one hash per file.

A branch name is resolved once, on the first download; the commit and the SHA-256 of every file are written to
a pin file in the cache folder. From then on the same commit and the same bytes are given, or nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from ...errors import DamagedFileError, UnsafeFileError, WeightsNotFoundError
from ...storage import cache_folder, file_sha256, read_json, write_json
from .._records import HubSource
from ._fetched import Fetched, is_offline

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
FALLBACKS = {"model.safetensors": "pytorch_model.bin"}
TIMEOUT_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Pin:
    """One version of a repository: its commit, and name -> SHA-256 of its files in use (None: unknown)."""

    commit: str
    files: dict[str, str | None]


def fetch_from_hub(
    source: HubSource, *, sha256: str | None, extra_files: Sequence[str], renew: bool = False
) -> Fetched:
    """The weights file and those of `extra_files` that the repository has, at the pinned commit."""
    for name in (source.file, *extra_files):
        _check_name(name)
    known = pin = _read_pin(source)
    if pin is None or _weights_file(source, pin) not in pin.files:
        pin = _survey(source, extra_files)
    weights_file = _weights_file(source, pin)
    paths = {name: _download(source, pin, name, renew=renew and name == weights_file) for name in pin.files}
    pin = _with_hashes(source, pin, paths, weights_file)
    if pin != known:
        write_json(_pin_path(source), asdict(pin))
    path = paths[weights_file]
    return Fetched(
        path=path,
        folder=path.parent,
        sha256=sha256 or pin.files[weights_file],
        revision=pin.commit,
        renewable=not is_offline(),
        advice=f"To accept another version than the pinned one, delete {_pin_path(source)}.",
    )


def verify_pins() -> list[tuple[Path, str | None]]:
    """Every file that was fetched and pinned, and what is wrong with it: gone, or other bytes than were pinned."""
    found: list[tuple[Path, str | None]] = []
    for path in sorted((cache_folder() / "pins").glob("*.json")):
        pin = _pin_at(path)
        repository = path.stem.partition("@")[0]  # owner--name, as the hub's cache has it too
        for name, sha256 in pin.files.items():
            file = hub_cache() / f"models--{repository}" / "snapshots" / pin.commit / name
            found.append((file, _what_is_wrong(file, sha256)))
    return found


def _what_is_wrong(file: Path, sha256: str | None) -> str | None:
    if not file.is_file():
        return "it was fetched and is gone; `neurenix fetch` brings it back"
    if sha256 is not None and file_sha256(file) != sha256:
        return f"its SHA-256 is not {sha256[:16]}… as when it was fetched; delete it and fetch it again"
    return None


def hub_endpoint() -> str:
    """The hub's address: $HF_ENDPOINT as it is now, else the public hub."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def hub_cache() -> Path:
    """Where the hub's files are kept, shared with other tools: HF_HUB_CACHE, HF_HOME/hub or the default."""
    if os.environ.get("HF_HUB_CACHE"):
        return Path(os.environ["HF_HUB_CACHE"])
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "huggingface"
    return Path(os.environ.get("HF_HOME", default)) / "hub"


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise UnsafeFileError(f"{name!r} is no plain path inside a repository; it is refused.")


def _weights_file(source: HubSource, pin: Pin) -> str:
    fallback = FALLBACKS.get(source.file, source.file)
    return source.file if source.file in pin.files or fallback not in pin.files else fallback


def _survey(source: HubSource, extra_files: Sequence[str]) -> Pin:
    """What the hub has of the wanted files; when it cannot be reached, what its cache on this machine has."""
    if is_offline():
        reason = "offline mode is on (HF_HUB_OFFLINE)"
    else:
        try:
            return _survey_hub(source, extra_files)
        except ConnectionError as error:
            reason = str(error)
    pin = _survey_cache(source, extra_files)
    if pin is None:
        raise _not_found(source, reason)
    return pin


def _survey_hub(source: HubSource, extra_files: Sequence[str]) -> Pin:
    from huggingface_hub import HfApi, errors

    try:
        information = HfApi(endpoint=hub_endpoint()).model_info(
            source.repository, revision=source.revision, files_metadata=True, timeout=TIMEOUT_SECONDS
        )
    except errors.GatedRepoError:
        raise _not_found(source, "the repository asks for an agreement: accept it there and log in") from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise _not_found(source, _first_line(error)) from None
    except errors.HFValidationError as error:
        raise UnsafeFileError(f"{source.repository!r} is no name of a repository: {_first_line(error)}") from None
    except (_transport_error(), OSError) as error:
        raise ConnectionError(_first_line(error)) from None
    present = {file.rfilename: file.lfs.sha256 if file.lfs else None for file in information.siblings or ()}
    wanted = source.file if source.file in present else FALLBACKS.get(source.file, source.file)
    if wanted not in present:
        raise _not_found(source, f"the repository has no file {source.file!r}; it has {', '.join(sorted(present)[:8])}")
    return Pin(
        commit=_checked_commit(source, information.sha),
        files={name: present[name] for name in (wanted, *extra_files) if name in present},
    )


def _checked_commit(source: HubSource, commit: str | None) -> str:
    if commit is None or not COMMIT.fullmatch(commit):
        raise DamagedFileError(
            f"{hub_endpoint()} names {commit!r} as the commit of {source.repository}, which is none."
        )
    if COMMIT.fullmatch(source.revision) and commit != source.revision:
        raise DamagedFileError(
            f"{hub_endpoint()} answers with commit {commit} of {source.repository} where {source.revision} "
            "was asked for."
        )
    return commit


def _survey_cache(source: HubSource, extra_files: Sequence[str]) -> Pin | None:
    from huggingface_hub import try_to_load_from_cache

    for weights_file in (source.file, FALLBACKS.get(source.file, source.file)):
        found = try_to_load_from_cache(source.repository, weights_file, cache_dir=hub_cache(), revision=source.revision)
        if isinstance(found, str):
            folder = Path(found).parents[len(PurePosixPath(weights_file).parts) - 1]
            names = (weights_file, *(name for name in extra_files if (folder / name).is_file()))
            return Pin(commit=folder.name, files={name: _blob_hash(folder / name) for name in names})
    return None


def _blob_hash(path: Path) -> str | None:
    """The hub's cache names large files by their SHA-256."""
    name = path.resolve().name
    return name if SHA256.fullmatch(name) else None


def _download(source: HubSource, pin: Pin, name: str, *, renew: bool) -> Path:
    from huggingface_hub import errors, hf_hub_download

    try:
        path = hf_hub_download(
            source.repository,
            name,
            revision=pin.commit,
            endpoint=hub_endpoint(),
            cache_dir=hub_cache(),
            local_files_only=is_offline(),
            force_download=renew and not is_offline(),
        )
    except (errors.RevisionNotFoundError, errors.EntryNotFoundError, errors.RepositoryNotFoundError) as error:
        raise _not_found(source, f"{name!r} of commit {pin.commit[:12]}: {_first_line(error)}") from None
    except (_transport_error(), OSError) as error:
        raise _not_found(source, _first_line(error)) from None
    return Path(path)


def _with_hashes(source: HubSource, pin: Pin, paths: dict[str, Path], weights_file: str) -> Pin:
    """The pin with every file's hash; small files are checked here, the weights when they are read."""
    hashes = dict(pin.files)
    for name, path in paths.items():
        if name == weights_file and hashes[name] is not None:
            continue
        found = file_sha256(path)
        if found != (hashes[name] or found):
            path.unlink()
            found = file_sha256(_download(source, pin, name, renew=True))
        if found != (hashes[name] or found):
            raise _changed(source, name, found, str(hashes[name]))
        hashes[name] = found
    return replace(pin, files=hashes)


def _pin_path(source: HubSource) -> Path:
    name = f"{source.repository}@{source.revision}".replace("/", "--")
    return cache_folder() / "pins" / f"{name}.json"


def _read_pin(source: HubSource) -> Pin | None:
    path = _pin_path(source)
    return _pin_at(path) if path.is_file() else None


def _pin_at(path: Path) -> Pin:
    content = read_json(path)
    try:
        pin = Pin(commit=content["commit"], files=dict(content["files"]))
        for name in pin.files:
            _check_name(name)
    except (TypeError, KeyError, ValueError):
        raise DamagedFileError(f"{path} is no pin of a hub repository; delete it to pin the version anew.") from None
    return pin


def _changed(source: HubSource, name: str, found: str, pinned: str) -> DamagedFileError:
    return DamagedFileError(
        f"{name!r} of {source.repository} has SHA-256 {found[:16]}… and not {pinned[:16]}… as when it was "
        f"first fetched. To accept the new version, delete {_pin_path(source)}."
    )


def _not_found(source: HubSource, reason: str) -> WeightsNotFoundError:
    pinned = (
        f" To accept another version than the pinned one, delete {_pin_path(source)}."
        if _pin_path(source).is_file()
        else ""
    )
    return WeightsNotFoundError(
        f"The weights {source.file!r} of {source.repository} (revision {source.revision}) could not be "
        f"fetched from {hub_endpoint()}: {reason}. They are not in the cache at {hub_cache()} either. Go "
        f"online, set HF_ENDPOINT to a mirror, or give a file or folder of your own: weights=PATH.{pinned}"
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def _transport_error() -> type[Exception]:
    """Root of the errors of the HTTP library that the hub's client is built on, whichever that is."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(kind for kind in HfHubHTTPError.__bases__ if issubclass(kind, Exception) and kind is not OSError)
