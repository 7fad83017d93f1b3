"""Is a folder of class folders what it seems to be?"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigurationError, NeurenixWarning

PARTS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}


def check_class_folders(root: Path, names: Sequence[str], loose: Sequence[Path]) -> None:
    """Raise for parts of a data set in place of classes; warn of images that lie beside the class folders.

    names: of the class folders. loose: images directly in `root`, which belong to no class.
    """
    if names and all(name.lower() in PARTS for name in names):
        given = ", ".join(os.fspath(root / name) for name in names)
        raise ConfigurationError(
            f"{root} holds {' and '.join(names)}, which are parts of a data set and no classes; give each by itself, "
            f"as training or validation data: {given}."
        )
    if loose:
        warnings.warn(
            f"{len(loose)} images lie directly in {root}, beside its class folders ({loose[0].name}, …); they "
            "belong to no class and are left out.",
            NeurenixWarning,
            stacklevel=4,
        )
