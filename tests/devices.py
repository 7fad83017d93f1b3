"""Where tests put their models: NEURENIX_TEST_DEVICE, "cuda" say, which CI does not have; the CPU by default."""

from __future__ import annotations

import os

import torch

DEVICE = torch.device(os.environ.get("NEURENIX_TEST_DEVICE", "cpu"))
