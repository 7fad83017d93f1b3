"""What all tests of the frozen prefix share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of each test's own."""
    monkeypatch.setenv("NEURENIX_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
