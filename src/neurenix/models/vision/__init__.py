"""Image families, one file each; importing a file enters its architectures into ARCHITECTURES."""

from . import efficientnet as efficientnet
from . import mobilenet as mobilenet
from . import resnet as resnet
from . import vit as vit

__all__ = ["efficientnet", "mobilenet", "resnet", "vit"]
