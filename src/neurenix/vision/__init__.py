"""Images: what weights expect of them, preprocessing, transforms and the first-batch guard."""

from __future__ import annotations

from . import transforms as transforms
from ._input import ImageInput as ImageInput
from .guard import check_images as check_images
from .preprocess import AUGMENTATIONS as AUGMENTATIONS
from .preprocess import ImagePreprocess as ImagePreprocess

__all__ = ["AUGMENTATIONS", "ImageInput", "ImagePreprocess", "check_images", "transforms"]
