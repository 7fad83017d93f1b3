"""Image families, one file each; importing a file enters its architectures into ARCHITECTURES."""

from . import craft as craft
from . import deeplab as deeplab
from . import deeplabv3plus as deeplabv3plus
from . import efficientnet as efficientnet
from . import faster_rcnn as faster_rcnn
from . import mask_rcnn as mask_rcnn
from . import mobilenet as mobilenet
from . import resnet as resnet
from . import retinanet as retinanet
from . import unet as unet
from . import vit as vit
from . import yolos as yolos
from . import yolox as yolox

__all__ = [
    "craft",
    "deeplab",
    "deeplabv3plus",
    "efficientnet",
    "faster_rcnn",
    "mask_rcnn",
    "mobilenet",
    "resnet",
    "retinanet",
    "unet",
    "vit",
    "yolos",
    "yolox",
]
