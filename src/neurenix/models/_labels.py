"""Names of the classes that published heads answer in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

# label set -> torchvision's list of its names
_LISTS: Mapping[str, str] = {
    "imagenet-1k": "_IMAGENET_CATEGORIES",
    "coco-91": "_COCO_CATEGORIES",
    "coco-80": "_COCO_CATEGORIES",
    "voc-21": "_VOC_CATEGORIES",
}
_AUDIOSET = Path(__file__).parent / "audio" / "audioset_527.txt"
_NO_CLASSES = ("__background__", "N/A")


def label_names(labels: str | None) -> tuple[str, ...]:
    """The names of a label set, in the order of the outputs; none for an unknown set.

    imagenet-1k: the classes of ILSVRC 2012. coco-91: COCO's numbers, of which ten are not in use, with the
    background as 0. coco-80: those in use, from 0 and without a background. voc-21: Pascal VOC's twenty classes, with
    the background as 0. audioset-527: AudioSet's classes (Gemmeke et al., ICASSP 2017; CC BY 4.0).
    """
    if labels == "audioset-527":
        return tuple(_AUDIOSET.read_text(encoding="utf-8").splitlines())
    if labels is None or labels not in _LISTS:
        return ()
    from torchvision.models import _meta

    names = tuple(getattr(_meta, _LISTS[labels]))
    return tuple(name for name in names if name not in _NO_CLASSES) if labels == "coco-80" else names
