"""The criteria, one file each; importing this enters them in CRITERIA."""

from .atc import ATC as ATC
from .bnm import BNM as BNM
from .class_ami import ClassAMI as ClassAMI
from .class_spread import ClassSpread as ClassSpread
from .dev import DEV as DEV
from .im import IM as IM
from .iwcv import IWCV as IWCV
from .mix_val import MixVal as MixVal
from .prediction_entropy import PredictionEntropy as PredictionEntropy
from .prior_im import PriorIM as PriorIM
from .snd import SND as SND
from .source_error import SourceError as SourceError
from .source_risk import SourceRisk as SourceRisk

__all__ = [
    "ATC",
    "BNM",
    "ClassAMI",
    "ClassSpread",
    "DEV",
    "IM",
    "IWCV",
    "MixVal",
    "PredictionEntropy",
    "PriorIM",
    "SND",
    "SourceError",
    "SourceRisk",
]
