"""CUDA questions, asked of PyTorch only when they are asked of us."""

from __future__ import annotations


def is_available() -> bool:
    """True when PyTorch can run on at least one CUDA device."""
    import torch

    return torch.cuda.is_available()


def device_count() -> int:
    """Number of visible CUDA devices."""
    import torch

    return torch.cuda.device_count()


def get_device_name(device: int = 0) -> str:
    """The name of one CUDA device, as its driver gives it."""
    import torch

    return torch.cuda.get_device_name(device)
