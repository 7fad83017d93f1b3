"""From a record to tensors: fetch, hash the very bytes that are parsed, fetch once more if damaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import DamagedFileError
from ...storage import check_hash, file_sha256
from .._foreign_sizes import naming
from .._records import HubSource, PackageSource, PathSource, StateDict, UrlSource, Weights
from ._disk import find_on_disk
from ._fetched import Fetched
from ._hub import fetch_from_hub
from ._package import find_in_package
from ._plain import check_plain
from ._state_dict import read_state_dict
from ._url import fetch_from_url


@dataclass(frozen=True, kw_only=True)
class Obtained:
    """The tensors of one weights file, under the file's own names.

    folder: where its configuration and tokenizer lie; None when it has none.
    sha256: of the file that was read. revision: the hub's commit, None elsewhere.
    """

    state: StateDict
    folder: Path | None
    sha256: str
    revision: str | None


def obtain(weights: Weights, extra_files: Sequence[str] = ()) -> Obtained:
    """Fetch and read the weights that a record describes.

    extra_files: names of files beside the weights (configuration, tokenizer), fetched where they exist.
    Raises WeightsNotFoundError, DamagedFileError (after one more attempt) or UnsafeFileError.
    """
    fetched = _fetch(weights, extra_files, renew=False)
    try:
        return _read(fetched, weights.read)
    except DamagedFileError:
        if not fetched.renewable:
            raise
    fetched.path.unlink(missing_ok=True)
    fetched = _fetch(weights, extra_files, renew=True)
    try:
        return _read(fetched, weights.read)
    except DamagedFileError as error:
        raise DamagedFileError(f"{error} It was fetched twice. {fetched.advice}".strip()) from None


def _read(fetched: Fetched, read: Callable[[Path], StateDict] | None) -> Obtained:
    """What is ours is safetensors always, also for architectures whose published files have a format of their own."""
    with naming(str(fetched.path)):
        if read is None or fetched.path.suffix == ".safetensors":
            state, sha256 = read_state_dict(fetched.path, sha256=fetched.sha256)
        else:
            sha256 = file_sha256(fetched.path)
            check_hash(fetched.path, sha256, fetched.sha256)
            state = check_plain(fetched.path, read(fetched.path))
    return Obtained(state=state, folder=fetched.folder, sha256=sha256, revision=fetched.revision)


def _fetch(weights: Weights, extra_files: Sequence[str], *, renew: bool) -> Fetched:
    match weights.source:
        case HubSource() as source:
            return fetch_from_hub(source, sha256=weights.sha256, extra_files=extra_files, renew=renew)
        case UrlSource() as source:
            return fetch_from_url(source)
        case PackageSource() as source:
            return find_in_package(source, sha256=weights.sha256)
        case PathSource() as source:
            return find_on_disk(source, sha256=weights.sha256)
