"""What frozen layers gave in earlier runs, found again by the very content of what they were given.

    <cache>/prefix/<identity of the layers>/<hash of a batch's inputs>.<hash of the file>.safetensors

A file is whole or absent, and its name says what went in and what its bytes are. So a killed process, a full disk, a
changed image, transform or weight, and several processes at once can lead to work done again, and never to a wrong row.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from ...backends import Inputs
from ...data import Batch
from ...errors import DamagedFileError
from ...models import fingerprint
from ...storage import cache_folder, read_hashed, sweep, tensor_digest, write_hashed
from .reading import Reading
from .split import Embedding, Prefix
from .store import Boundary

_SHARE = 0.25  # of the disk's free room that kept files may take, all of them together
_DIGITS = 32
_STAMP = "of these inputs"


@final
class KeptBatches:
    """The boundaries of batches, on disk.

    prefix: the frozen layers. environment: what else decides the last bits of what they give. size: bytes that will
    be kept about, for which older files make room. say: is told what a user should know.
    found, written: batches so far.
    """

    def __init__(
        self, prefix: nn.Module, environment: Mapping[str, Any], size: float, say: Callable[[str], None]
    ) -> None:
        root = cache_folder() / "prefix"
        self.folder = root / _identity(prefix, environment)[:_DIGITS]
        self._say = say
        self._paths: dict[str, Path] = {}
        self.found = self.written = 0
        self._writes = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            sweep(self.folder)
            self._paths = {path.name.split(".")[0]: path for path in self.folder.glob("*.safetensors")}
            self._writes = _make_room(root, self.folder, size)
        except OSError as error:
            say(f"what frozen layers give is not kept for later runs: {error}")
        else:
            if not self._writes:
                say(
                    f"what frozen layers give is not kept for later runs: {size / 2**30:,.1f} GiB are more than the "
                    f"quarter of the free disk that {root} may take"
                )

    def find(self, batch: Batch) -> Boundary | None:
        """What was kept for these inputs; a damaged file is removed, as if it had never been."""
        content = _content(batch.inputs)
        path = self._paths.get(content)
        if path is None:
            return None
        try:
            boundary = read_hashed(path)
        except FileNotFoundError:
            return None
        except (DamagedFileError, OSError):
            boundary = {}
        stamp = boundary.pop(_STAMP, None)
        if stamp is None or not torch.equal(stamp, _stamp(content)) or not _fits(boundary, batch):
            _remove(path)
            return None
        with contextlib.suppress(OSError):  # it may be another user's
            os.utime(path)  # in use: the last to be removed
        self.found += 1
        return boundary

    def keep(self, batch: Batch, boundary: Boundary) -> None:
        """Write what the layers gave for a batch; where that fails, nothing more is written."""
        if not self._writes:
            return
        try:
            content = _content(batch.inputs)
            write_hashed(self.folder, content, {**boundary, _STAMP: _stamp(content)}, synced=False)
            self.written += 1
        except OSError as error:
            self._writes = False
            self._say(f"what frozen layers give is not kept for later runs: {error}")

    def forget(self) -> None:
        """Remove what is there, because it is not what the layers give."""
        for path in self._paths.values():
            _remove(path)
        self._paths, self.found = {}, 0


def _identity(prefix: nn.Module, environment: Mapping[str, Any]) -> str:
    if isinstance(prefix, Embedding):
        layers: Any = fingerprint.module_digest(prefix.model, leave_out=("head",))
    elif isinstance(prefix, Reading):
        layers = [*prefix.what, fingerprint.module_digest(prefix.model, leave_out=("head",))]
    else:
        assert isinstance(prefix, Prefix)
        tensors = [*prefix.body.named_parameters(), *prefix.body.named_buffers()]
        layers = [prefix.body.code, {name: tensor_digest(tensor) for name, tensor in tensors}]
    return fingerprint.key({"layers": layers, **environment, "versions": fingerprint.versions()})


def _content(inputs: Inputs) -> str:
    tensors = inputs if isinstance(inputs, Mapping) else {"": inputs}
    digests = [f"{name}{tensor_digest(tensor)}" for name, tensor in sorted(tensors.items())]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:_DIGITS]


def _stamp(content: str) -> Tensor:
    """What is written beside the rows, so that a file under the name of another is seen."""
    return torch.tensor(list(bytes.fromhex(content)), dtype=torch.uint8)


def _fits(boundary: Boundary, batch: Batch) -> bool:
    return bool(boundary) and all(rows.ndim > 0 and len(rows) == len(batch) for rows in boundary.values())


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # where it may not be removed, it is passed over again
        path.unlink(missing_ok=True)


def _make_room(root: Path, folder: Path, size: float) -> bool:
    """Remove what was used longest ago until `size` bytes more are allowed for; False if they cannot be.

    Of the folder's own files the newest, `size` bytes of them, may be what is wanted, and stay.
    """
    found: list[tuple[float, int, Path]] = []
    for path in root.glob("*/*.safetensors"):
        with contextlib.suppress(FileNotFoundError):  # another process is making room too
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    own, removable = 0.0, []
    for changed, taken, path in sorted(found, reverse=True):
        if path.parent == folder and own + taken <= size:
            own += taken
        else:
            removable.append((changed, taken, path))
    total = sum(taken for _, taken, _ in found)
    allowed = _SHARE * (shutil.disk_usage(root).free + total)
    wanted = total + size - own
    if wanted - sum(taken for _, taken, _ in removable) > allowed:
        return False
    for _, taken, path in sorted(removable):
        if wanted <= allowed:
            break
        _remove(path)
        wanted -= taken
    return True
