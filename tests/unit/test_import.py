"""`import neurenix` is light, and its parts are there without further imports."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import neurenix

HEAVY = {"torch", "torchvision", "timm", "transformers", "accelerate", "torchmetrics", "sklearn", "numpy", "rich"}


def in_fresh_python(code: str) -> str:
    """What `code` prints in a Python of its own that finds the same neurenix."""
    source = str(Path(neurenix.__file__).parents[1])
    prefix = f"import sys; sys.path.insert(0, {source!r})\n"
    done = subprocess.run([sys.executable, "-W", "error", "-c", prefix + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_takes_less_than_150_milliseconds() -> None:
    code = "import time; began = time.perf_counter(); import neurenix; print(time.perf_counter() - began)"
    assert statistics.median(float(in_fresh_python(code)) for _ in range(5)) < 0.15


def test_loads_no_heavy_package() -> None:
    loaded = in_fresh_python("import neurenix, sys; print(*sys.modules)").split()
    assert not HEAVY & set(loaded)


@pytest.mark.parametrize("part", ["metrics", "callbacks"])
def test_these_parts_leave_torchmetrics_and_rich_for_later(part: str) -> None:
    loaded = in_fresh_python(f"import neurenix.{part}, sys; print(*sys.modules)").split()
    assert not (HEAVY - {"torch", "numpy"}) & set(loaded)


def test_parts_load_when_they_are_used() -> None:
    code = """
import neurenix
print(neurenix.cuda.is_available() in (True, False))
print(neurenix.callbacks.EarlyStopping.__name__)
print(neurenix.transfer.load_pretrained_model.__name__)
from neurenix.transfer import Finetuner
print(Finetuner.__name__)
"""
    assert in_fresh_python(code).split() == ["True", "EarlyStopping", "load_pretrained_model", "Finetuner"]


@pytest.mark.parametrize("part", [name for name in neurenix.__all__ if name != "__version__"])
def test_every_named_part_exists(part: str) -> None:
    assert getattr(neurenix, part).__name__ == f"neurenix.{part}"
    assert part in dir(neurenix)


def test_a_misspelt_part_names_the_near_ones() -> None:
    with pytest.raises(AttributeError, match="no attribute 'callback'; there are: callbacks"):
        neurenix.callback  # noqa: B018
    with pytest.raises(AttributeError, match="there are: __version__, audio, callbacks, cuda"):
        neurenix.zzzzzz  # noqa: B018


def test_version_is_a_version() -> None:
    assert [part.isdigit() for part in neurenix.__version__.split(".")] == [True, True, True]
