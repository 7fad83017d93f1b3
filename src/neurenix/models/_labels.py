"""Names of the classes that published heads answer in."""

from __future__ import annotations


def label_names(labels: str | None) -> tuple[str, ...]:
    """The names of a label set, in the order of the outputs; none for an unknown set."""
    if labels != "imagenet-1k":
        return ()
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    return tuple(_IMAGENET_CATEGORIES)
