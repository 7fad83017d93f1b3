"""What the fits of jobs.py end with when nobody disturbs them."""

from __future__ import annotations

import time

import pytest
from tests.faults.children import finish


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float]:
    """What a fit that nobody disturbs ends with, and the seconds it takes."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    finish(folder.with_name("first"))  # the server has loaded everything after it
    began = time.monotonic()
    return finish(folder), time.monotonic() - began
