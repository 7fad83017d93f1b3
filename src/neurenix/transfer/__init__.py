"""The face of neurenix: load a pretrained model, adapt it, measure it, save it."""

from ..models import layer_names as layer_names
from ..models.nlp import generate as generate
from . import adaptation as adaptation
from . import heads as heads
from .adaptation import DomainAdapter as DomainAdapter
from .adaptation import compare_adaptations as compare_adaptations
from .adaptation import list_adaptation_methods as list_adaptation_methods
from .comparison import Comparison as Comparison
from .comparison import compare as compare
from .features import FeatureExtractor as FeatureExtractor
from .finetune import Finetuner as Finetuner
from .heads import attach_head as attach_head
from .heads import list_heads as list_heads
from .inputs import adapt_channels as adapt_channels
from .inputs import adapt_length as adapt_length
from .inputs import adapt_resolution as adapt_resolution
from .inputs import adapt_to_series as adapt_to_series
from .inputs import adapt_to_sounds as adapt_to_sounds
from .inputs import adapt_to_tables as adapt_to_tables
from .inputs import adapt_to_video as adapt_to_video
from .label_errors import find_label_errors as find_label_errors
from .pretrained import list_models as list_models
from .pretrained import list_weights as list_weights
from .pretrained import load_pretrained_model as load_pretrained_model
from .published import predict as predict
from .surgery import add_layer as add_layer
from .surgery import block_influence as block_influence
from .surgery import list_edits as list_edits
from .surgery import prune_depth as prune_depth
from .surgery import register_layer as register_layer
from .surgery import remove_layer as remove_layer
from .surgery import replace_layer as replace_layer
from .surgery import replay_edits as replay_edits
from .surgery import resize_vocabulary as resize_vocabulary
from .surgery import swap_activations as swap_activations
from .surgery import swap_norms as swap_norms
from .surgery import undo_edit as undo_edit
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
    "DomainAdapter",
    "FeatureExtractor",
    "Finetuner",
    "IA3Tuner",
    "LoraTuner",
    "NormTuner",
    "PromptTuner",
    "ScaleShiftTuner",
    "Tunings",
    "adapt_channels",
    "adapt_length",
    "adapt_resolution",
    "adapt_to_series",
    "adapt_to_sounds",
    "adapt_to_tables",
    "adapt_to_video",
    "adaptation",
    "add_layer",
    "attach_head",
    "block_influence",
    "compare",
    "compare_adaptations",
    "find_label_errors",
    "generate",
    "heads",
    "layer_names",
    "list_adaptation_methods",
    "list_edits",
    "list_heads",
    "list_models",
    "list_weights",
    "load_pretrained_model",
    "predict",
    "prune_depth",
    "register_layer",
    "remove_layer",
    "replace_layer",
    "replay_edits",
    "resize_vocabulary",
    "swap_activations",
    "swap_norms",
    "undo_edit",
]
