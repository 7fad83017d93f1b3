"""Which digits a processor is given, by what it multiplies natively."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from neurenix import devices
from neurenix.devices import is_exact, resolve_precision

CPU = torch.device("cpu")
ZEN_4 = {"avx2", "avx512f", "avx512_vnni", "avx512_bf16"}
KINDS = {
    "AVX2 alone": ("GenuineIntel", {"avx2"}, "fp32", True),
    "Intel's AVX-512 with VNNI and bf16": ("GenuineIntel", ZEN_4, "fp32", False),
    "AMD's AVX-512 with VNNI and bf16": ("AuthenticAMD", ZEN_4, "bf16", False),
    "AMD's AVX2 alone": ("AuthenticAMD", {"avx2"}, "fp32", True),
    "AMX": ("GenuineIntel", {"avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"}, "bf16", False),
    "unknown": ("", set(), "fp32", True),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_auto_trains_in_the_faster_digits_and_admits_fewer_where_they_are_faster(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    vendor, flags, precision, exact = KINDS[kind]
    monkeypatch.setattr(devices, "cpu_vendor", lambda: vendor)
    monkeypatch.setattr(devices, "cpu_flags", lambda: flags)
    assert resolve_precision("auto", CPU) == precision
    assert is_exact("auto", CPU) == exact


def test_a_small_model_keeps_its_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cpu_flags", lambda: KINDS["AMX"][1])
    small, large = nn.Linear(99, 999), nn.Linear(99, 1000)  # of 99,900 and 100,000 weights
    for model, precision in ((small, "fp32"), (large, "bf16"), (None, "bf16")):
        assert resolve_precision("auto", CPU, model) == precision
        assert resolve_precision("bf16", CPU, model) == "bf16"


def test_what_linux_tells_of_a_cpu(tmp_path: Path) -> None:
    told = "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512_bf16\nvmx flags\t: vnmi\n\n"
    (tmp_path / "cpuinfo").write_text(told)
    assert devices._told_of_cpu("flags", tmp_path / "cpuinfo") == "fpu avx2 avx512_bf16"
    assert devices._told_of_cpu("vendor_id", tmp_path / "cpuinfo") == "AuthenticAMD"
    assert devices._told_of_cpu("flags", tmp_path / "none") == devices._told_of_cpu("model", tmp_path / "cpuinfo") == ""


def test_what_is_asked_for_by_name_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cpu_flags", lambda: KINDS["AMX"][1])
    assert resolve_precision("fp32", CPU) == "fp32" and is_exact("fp32", CPU)
    assert resolve_precision("bf16", CPU) == "bf16" and not is_exact("bf16", CPU)
