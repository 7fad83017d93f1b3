"""What holds for every test: no hub, a cache of its own, few threads, randomness asked for by name."""

from __future__ import annotations

import os
import tempfile

# Before anything imports huggingface_hub or transformers, which read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def neurenix_home() -> Iterator[str]:
    """A cache folder of this session, removed at its end."""
    with (
        tempfile.TemporaryDirectory(prefix="neurenix-home-") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("NEURENIX_HOME", folder)
        patch.setenv("HF_HOME", folder)
        yield folder


@pytest.fixture(autouse=True)
def runs_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where fits of this test leave their run folders."""
    folder = tmp_path_factory.mktemp("runs")
    monkeypatch.setenv("NEURENIX_RUNS", str(folder))
    return folder


@pytest.fixture(scope="session", autouse=True)
def few_threads() -> None:
    """The tests' networks are so small that threads only get in each other's way."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_networks() -> None:
    """Networks that a test makes without a seed are the same in every run and in any order of tests."""
    torch.manual_seed(20240131)


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded source of random numbers; the global one is nobody's."""
    return torch.Generator().manual_seed(20240131)
