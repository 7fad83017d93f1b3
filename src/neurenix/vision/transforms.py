"""Image transforms by their usual names: those of torchvision.transforms.v2, and `ToTensor`.

`from neurenix.vision import transforms` loads nothing; torchvision is imported when a transform is first
named.
"""

from __future__ import annotations

from typing import Any

import torch

from ..data.description import describe as describe
from ..errors import nearest_names
from ..packages import require


def ToTensor() -> Any:  # noqa: N802  (a transform, named as everybody names it)
    """A PIL image or uint8 array (height, width, c) -> float32 tensor (c, height, width) in [0, 1]."""
    v2 = _v2()
    return v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()])


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    v2 = _v2()
    if name in _names(v2):
        return getattr(v2, name)
    close = ", ".join(nearest_names(name, _names(v2)))
    raise AttributeError(
        f"There is no transform {name!r}; "
        + (f"closest: {close}." if close else "dir(neurenix.vision.transforms) lists all of them.")
    )


def __dir__() -> list[str]:
    return sorted(_names(_v2()))


def _v2() -> Any:
    require("torchvision", purpose="neurenix.vision.transforms")
    from torchvision.transforms import v2

    return v2


def _names(v2: Any) -> list[str]:
    return [
        *(name for name in dir(v2) if name[0].isupper() and name != "ToTensor"),
        "ToTensor",
        "functional",
        "describe",
    ]
