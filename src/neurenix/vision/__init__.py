"""Images: what weights expect of them, preprocessing, transforms and the first-batch guard."""

from __future__ import annotations

from . import transforms as transforms
from ._detection_input import DetectionInput as DetectionInput
from ._input import ImageInput as ImageInput
from ._segmentation_input import SegmentationInput as SegmentationInput
from .boxed import BoxedDataset as BoxedDataset
from .boxes import boxes_in_original as boxes_in_original
from .boxes import detections_in_original as detections_in_original
from .boxes import pad_images as pad_images
from .channels import CHANNEL_MAPS as CHANNEL_MAPS
from .detection import DETECTION_AUGMENTATIONS as DETECTION_AUGMENTATIONS
from .detection import DetectionPreprocess as DetectionPreprocess
from .guard import check_images as check_images
from .preprocess import AUGMENTATIONS as AUGMENTATIONS
from .preprocess import ImagePreprocess as ImagePreprocess
from .segmentation import SegmentationDataset as SegmentationDataset
from .segmentation import SegmentationPreprocess as SegmentationPreprocess
from .segmentation import original_scores as original_scores
from .video import VideoPreprocess as VideoPreprocess

__all__ = [
    "AUGMENTATIONS",
    "BoxedDataset",
    "CHANNEL_MAPS",
    "DETECTION_AUGMENTATIONS",
    "DetectionInput",
    "DetectionPreprocess",
    "ImageInput",
    "ImagePreprocess",
    "SegmentationDataset",
    "SegmentationInput",
    "SegmentationPreprocess",
    "VideoPreprocess",
    "boxes_in_original",
    "check_images",
    "detections_in_original",
    "original_scores",
    "pad_images",
    "transforms",
]
