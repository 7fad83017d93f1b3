"""Image families, one file each; importing a file enters its architectures into ARCHITECTURES."""

from . import efficientnet as efficientnet, mobilenet as mobilenet, resnet as resnet, vit as vit
