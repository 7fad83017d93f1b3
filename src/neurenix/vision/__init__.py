"""Images: what weights expect of them, preprocessing, transforms and the first-batch guard."""

from __future__ import annotations

from . import transforms as transforms
from ._input import ImageInput as ImageInput
from ._segmentation_input import SegmentationInput as SegmentationInput
from .guard import check_images as check_images
from .preprocess import AUGMENTATIONS as AUGMENTATIONS
from .preprocess import ImagePreprocess as ImagePreprocess
from .segmentation import SegmentationDataset as SegmentationDataset
from .segmentation import SegmentationPreprocess as SegmentationPreprocess
from .segmentation import original_scores as original_scores

__all__ = [
    "AUGMENTATIONS",
    "ImageInput",
    "ImagePreprocess",
    "SegmentationDataset",
    "SegmentationInput",
    "SegmentationPreprocess",
    "check_images",
    "original_scores",
    "transforms",
]
