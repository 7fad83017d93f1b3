"""How much memory there is, in a container too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from neurenix import devices

CPU, GIB = torch.device("cpu"), 2**30


def group(folder: Path, limit: str, used: int, reclaimable: int) -> tuple[Path, str, str, str]:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {reclaimable}\nactive_file 7\n")
    return folder, "memory.max", "memory.current", "inactive_file"


def test_a_containers_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(devices, "_GROUPS", (group(tmp_path, str(GIB // 4), GIB // 8, GIB // 16),))
    assert devices.free_memory(CPU) == GIB // 4 - GIB // 8 + GIB // 16


def test_a_full_container_has_nothing_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(devices, "_GROUPS", (group(tmp_path, "1000", 2000, 0),))
    assert devices.free_memory(CPU) == 0.0


@pytest.mark.parametrize("limit", ["max", "9223372036854771712", "not a number"])
def test_no_limit_is_no_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str) -> None:
    monkeypatch.setattr(devices, "_GROUPS", (group(tmp_path, limit, GIB, 0), (tmp_path / "none", "a", "b", "c")))
    free = devices.free_memory(CPU)
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    assert free == pytest.approx(float(lines["MemAvailable"].split()[0]) * 1024, rel=0.2)


def test_without_a_listing_it_is_what_is_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_file", lambda self: False)
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    assert devices.free_memory(CPU) == pytest.approx(float(lines["MemTotal"].split()[0]) * 1024, rel=0.05)
