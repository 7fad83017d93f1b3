"""The methods of domain adaptation, one file each; importing this enters them in METHODS."""

from .ada_bn import AdaBN as AdaBN
from .contrastive import Contrastive as Contrastive
from .dann import DANN as DANN
from .eta import ETA as ETA
from .fix_match import FixMatch as FixMatch
from .information_maximisation import InformationMaximisation as InformationMaximisation
from .masked_reconstruction import MaskedReconstruction as MaskedReconstruction
from .mean_teacher import MeanTeacher as MeanTeacher
from .rotation import Rotation as Rotation
from .shot import SHOT as SHOT
from .tent import Tent as Tent

__all__ = [
    "AdaBN",
    "Contrastive",
    "DANN",
    "ETA",
    "FixMatch",
    "InformationMaximisation",
    "MaskedReconstruction",
    "MeanTeacher",
    "Rotation",
    "SHOT",
    "Tent",
]
