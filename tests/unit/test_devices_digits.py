"""Which digits a processor is given, by what it multiplies natively."""

from __future__ import annotations

import pytest
import torch

from neurenix import devices
from neurenix.devices import is_exact, resolve_precision

CPU = torch.device("cpu")
KINDS = {
    "AVX2 alone": ({"avx2"}, "fp32", True),
    "AVX-512 with VNNI and bf16": ({"avx2", "avx512f", "avx512_vnni", "avx512_bf16"}, "fp32", False),
    "AMX": ({"avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"}, "bf16", False),
    "unknown": (set(), "fp32", True),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_auto_trains_in_the_faster_digits_and_admits_fewer_where_they_are_faster(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    flags, precision, exact = KINDS[kind]
    monkeypatch.setattr(devices, "cpu_flags", lambda: flags)
    assert resolve_precision("auto", CPU) == precision
    assert is_exact("auto", CPU) == exact


def test_what_is_asked_for_by_name_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cpu_flags", lambda: KINDS["AMX"][0])
    assert resolve_precision("fp32", CPU) == "fp32" and is_exact("fp32", CPU)
    assert resolve_precision("bf16", CPU) == "bf16" and not is_exact("bf16", CPU)
