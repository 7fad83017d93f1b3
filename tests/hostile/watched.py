"""Run in a process of its own: load every file of a folder, and note whatever a loader should never do.

    python watched.py FOLDER ANSWER KIND

KIND: weights (through read_state_dict and load_pretrained_model), tensors (read_tensors), configs (folders of BERTs),
families (folders whose case.json says which model is loaded of which file in it).
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import resource
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from neurenix.errors import NeurenixError

FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "subprocess.Popen",
    "pickle.find_class",
    "socket.connect",
    "socket.getaddrinfo",
    "urllib.Request",
    "ctypes.dlopen",
    "webbrowser.open",
    "code.__new__",
    "pty.spawn",
    "shutil.rmtree",
    "marshal.loads",
)
_ON = threading.Event()
SEEN: list[str] = []


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not _ON.is_set():
        return
    if event in FORBIDDEN and not (event == "marshal.loads" and _importing()):
        SEEN.append(f"{event} {str(arguments)[:100]}")
    elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wxa+"):
        SEEN.append(f"open for writing {arguments[0]}")


def _importing() -> bool:
    frame: Any = sys._getframe()
    while frame is not None:
        if "importlib" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def loaders(kind: str) -> list[Callable[[Path], Any]]:
    if kind == "tensors":
        from neurenix.storage import read_tensors

        return [read_tensors]
    from neurenix.transfer import load_pretrained_model

    if kind == "configs":
        return [lambda path: load_pretrained_model("bert-base-uncased", weights=path, device="cpu")]
    if kind == "families":
        return [lambda path: load_pretrained_model(**case_in(path), device="cpu")]
    from neurenix.models.sources import read_state_dict

    return [read_state_dict, lambda path: load_pretrained_model("resnet18", weights=path, device="cpu")]


def case_in(folder: Path) -> dict[str, Any]:
    values = json.loads((folder / "case.json").read_bytes())
    return {"model_name": values["model"], "weights": folder / values["file"]}


def answers_for(folder: Path, kind: str) -> dict[str, list[str]]:
    """File -> for each loader "error: message", or "loaded"."""
    answers: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()):
        answers[path.name] = []
        for load in loaders(kind):
            started = time.process_time()  # of this process: the machine may have more to do
            _ON.set()
            try:
                load(path)
                answer = "loaded"
            except NeurenixError as error:
                answer = f"{type(error).__name__}: {error}"
            except BaseException as error:
                answer = f"UNNAMED {type(error).__name__}: {error}"
            finally:
                _ON.clear()
            if time.process_time() - started > 5:
                answer = f"SLOW {answer}"
            answers[path.name].append(answer)
    return answers


def peak(again: bool = False) -> float:
    """The most MiB that this process had; again: counted from now on, where the system allows it."""
    if again:
        gc.collect()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def main(folder: Path, answer: Path, kind: str) -> None:
    warnings.simplefilter("ignore")
    os.environ["HF_HUB_OFFLINE"] = "1"
    for load in loaders(kind):  # everything is imported before the watch begins
        try:
            load(Path("nowhere.pth"))
        except (NeurenixError, OSError):
            pass
    import timm  # noqa: F401
    import torchvision  # noqa: F401
    import transformers  # noqa: F401

    warm = answers_for(folder.parent / "warm", kind) if (folder.parent / "warm").is_dir() else {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resident = peak(again=True)
    SEEN.clear()
    sys.addaudithook(watch)
    found = answers_for(folder, kind)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    notes = {"seen": SEEN, "grown": grown, "above": peak() - resident, "warm": warm}
    answer.write_text(json.dumps({"answers": found, **notes}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
