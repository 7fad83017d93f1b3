"""The face of neurenix: load a pretrained model, adapt it, measure it, save it."""

from ..models import layer_names as layer_names
from ..models.nlp import generate as generate
from . import heads as heads
from .comparison import Comparison as Comparison
from .comparison import compare as compare
from .features import FeatureExtractor as FeatureExtractor
from .finetune import Finetuner as Finetuner
from .heads import attach_head as attach_head
from .heads import list_heads as list_heads
from .label_errors import find_label_errors as find_label_errors
from .pretrained import list_models as list_models
from .pretrained import list_weights as list_weights
from .pretrained import load_pretrained_model as load_pretrained_model
from .published import predict as predict
from .tuners import AdapterTuner as AdapterTuner
from .tuners import BiasTuner as BiasTuner
from .tuners import IA3Tuner as IA3Tuner
from .tuners import LoraTuner as LoraTuner
from .tuners import NormTuner as NormTuner
from .tuners import PromptTuner as PromptTuner
from .tuners import ScaleShiftTuner as ScaleShiftTuner
from .tunings import Tunings as Tunings

__all__ = [
    "AdapterTuner",
    "BiasTuner",
    "Comparison",
    "FeatureExtractor",
    "Finetuner",
    "IA3Tuner",
    "LoraTuner",
    "NormTuner",
    "PromptTuner",
    "ScaleShiftTuner",
    "Tunings",
    "attach_head",
    "compare",
    "find_label_errors",
    "generate",
    "heads",
    "layer_names",
    "list_heads",
    "list_models",
    "list_weights",
    "load_pretrained_model",
    "predict",
]
