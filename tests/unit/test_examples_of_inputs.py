"""The example of adapted inputs runs as it is called, on few samples."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "adapt_inputs.py"


@pytest.mark.real_weights
def test_it_prints_three_tables() -> None:
    pytest.importorskip("espeakng_loader")
    ran = subprocess.run([sys.executable, str(SCRIPT), "--small"], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    rows = [line.split("|")[1:-1] for line in ran.stdout.splitlines() if line.startswith("| ")]
    accuracies = [float(row[1]) for row in rows if row[1].strip() not in ("accuracy", "---")]
    assert len(accuracies) == 2 + 3 + 2
    assert all(0 <= accuracy <= 1 for accuracy in accuracies)
