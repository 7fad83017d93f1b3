"""`neurenix verify`: are these files what was written?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data import DataManifest
from ..errors import ConfigurationError, NeurenixError
from ..models.sources import read_state_dict, verify_pins
from ..storage import file_sha256, inside, read_json
from ..training import RUN_FILE
from ..transfer.features import CachedFeatures
from ..transfer.saving import MANIFEST, verify_tuning
from ._arguments import Options

if TYPE_CHECKING:
    import jsonargparse

Finding = tuple[Path, str | None]  # a file, and what is wrong with it
_WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


def parser() -> Options:
    """The options of `neurenix verify`."""
    options = Options(
        "verify", "Are these files whole?", "neurenix verify runs/flowers feature_cache weights.safetensors"
    )
    options.parser.add_argument(
        "paths", nargs="*", help="Weights, saved models, run folders, feature caches, data with a manifest."
    )
    options.parser.add_argument("--hub", action="store_true", help="Every file that was fetched from the hub.")
    return options


def run(arguments: jsonargparse.Namespace) -> int:
    """One line for each file that is wrong, and a summary; 3 when one was."""
    if not arguments.paths and not arguments.hub:
        raise ConfigurationError("verify needs something to look at: neurenix verify PATH …, or --hub.")
    found: list[Finding] = []
    for path in arguments.paths:
        found += verified(Path(path))
    if arguments.hub:
        found += verify_pins()
    wrong = [(path, problem) for path, problem in found if problem is not None]
    for path, problem in wrong:
        print(f"{path}: {problem}")
    print(f"{len(found)} files looked at, {len(wrong)} of them wrong")
    return 3 if wrong else 0


def verified(path: Path) -> Iterator[Finding]:
    """Every file below `path` whose content can be checked, and what is wrong with it."""
    if path.is_file():
        yield path, _problem(partial(_weights, path))
        return
    if not path.is_dir():
        raise ConfigurationError(f"there is nothing at {path}; give a file or a folder.")
    kinds = {RUN_FILE: _run_folder, MANIFEST: _tuning, "manifest.json": _cache, "data-manifest.json": _data}
    for name, look in kinds.items():
        if (path / name).exists():
            yield from look(path)
            return
    inner = [entry for entry in sorted(path.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    files = [entry for entry in sorted(path.iterdir()) if entry.suffix in _WEIGHTS]
    if not inner and not files:
        raise ConfigurationError(
            f"{path} holds nothing that can be checked: no weights, saved model, run, feature cache or data manifest."
        )
    for file in files:
        yield file, _problem(partial(_weights, file))
    for folder in inner:
        try:
            yield from verified(folder)
        except ConfigurationError:
            continue


def _problem(look: Callable[[], Any]) -> str | None:
    try:
        look()
    except (NeurenixError, OSError, KeyError, ValueError, TypeError) as error:
        return str(error)
    return None


def _weights(path: Path) -> None:
    """Read all of it; a hash in the name is held against the content."""
    parts = path.name.split(".")
    named = parts[-2] if len(parts) > 2 and len(parts[-2]) == 64 else None
    state, _ = read_state_dict(path, sha256=named)
    wrong = [name for name, tensor in state.items() if tensor.is_floating_point() and not bool(tensor.isfinite().all())]
    if wrong:
        raise ConfigurationError(f"{len(wrong)} tensors hold NaN or infinity ({', '.join(wrong[:3])})")


def _run_folder(path: Path) -> Iterator[Finding]:
    for name in (RUN_FILE, "history.json", "command.json", "metrics.json"):
        if (path / name).exists():
            yield path / name, _problem(partial(read_json, path / name))
    for checkpoint in sorted((path / "checkpoints").glob("step-*")):
        whole = file_sha256(checkpoint) == checkpoint.name.split(".")[-2]
        yield checkpoint, None if whole else "its bytes are not those that its name says; an earlier one is used"
    if (path / "model").is_dir():
        yield from _tuning(path / "model")
    if (path / "baselines").is_dir():
        yield from verified(path / "baselines")


def _tuning(path: Path) -> Iterator[Finding]:
    problem = _problem(partial(verify_tuning, path))
    yield path / MANIFEST, problem


def _cache(path: Path) -> Iterator[Finding]:
    manifest = path / "manifest.json"
    problem = _problem(partial(CachedFeatures.load, path))
    yield manifest, problem
    for shard in sorted(path.glob("rows-*.safetensors")):
        whole = file_sha256(shard) == shard.name.split(".")[1]
        yield shard, None if whole else "its bytes are not those that its name says; it will be computed again"


def _data(path: Path) -> Iterator[Finding]:
    manifest = DataManifest.of(path)
    for name in manifest.files:
        file = inside(path, name)
        yield file, _problem(partial(manifest.read, file))
