"""Parameter-efficient tuners: the base keeps every byte, and little is trained beside it."""

from .adapter import AdapterTuner as AdapterTuner
from .bias import BiasTuner as BiasTuner
from .ia3 import IA3Tuner as IA3Tuner
from .lora import LoraTuner as LoraTuner
from .method import TUNERS as TUNERS
from .norm import NormTuner as NormTuner
from .prompt import PromptTuner as PromptTuner
from .scale_shift import ScaleShiftTuner as ScaleShiftTuner

__all__ = [
    "TUNERS",
    "AdapterTuner",
    "BiasTuner",
    "IA3Tuner",
    "LoraTuner",
    "NormTuner",
    "PromptTuner",
    "ScaleShiftTuner",
]
