"""Blocks: tensor in, tensor out. They know neither pretrained weights nor training."""

from .bottleneck import Adapted as Adapted
from .bottleneck import AdaptedInParallel as AdaptedInParallel
from .bottleneck import AdaptedJoin as AdaptedJoin
from .bottleneck import AdaptedNorm as AdaptedNorm
from .bottleneck import AdaptedOutput as AdaptedOutput
from .bottleneck import Bottleneck as Bottleneck
from .extended import Extended as Extended
from .extended import Residual as Residual
from .extended import Skip as Skip
from .fixed_norm import FixedNorm as FixedNorm
from .frames import FrameAttention as FrameAttention
from .frames import FrameVectors as FrameVectors
from .gradient_reversal import reverse_gradient as reverse_gradient
from .heads import ACTIVATIONS as ACTIVATIONS
from .heads import build_head as build_head
from .input_tokens import EmbeddedTokens as EmbeddedTokens
from .input_tokens import FeatureTokens as FeatureTokens
from .input_tokens import SeriesPatches as SeriesPatches
from .modes import evaluating as evaluating
from .pooling import POOLINGS as POOLINGS
from .pooling import Pool as Pool
from .pooling import as_tokens as as_tokens
from .prompts import Prompted as Prompted
from .scale_shift import ScaledInput as ScaledInput
from .scale_shift import ScaledShifted as ScaledShifted
from .task_head import TaskHead as TaskHead
from .vector_head import Solvable as Solvable
from .vector_head import VectorHead as VectorHead
from .wrapping import BASE_LAYER as BASE_LAYER
from .wrapping import Wrapper as Wrapper
from .wrapping import unwrap as unwrap
from .wrapping import wrap as wrap

__all__ = [
    "ACTIVATIONS",
    "Adapted",
    "AdaptedInParallel",
    "AdaptedJoin",
    "AdaptedNorm",
    "AdaptedOutput",
    "BASE_LAYER",
    "Bottleneck",
    "EmbeddedTokens",
    "Extended",
    "FeatureTokens",
    "FixedNorm",
    "FrameAttention",
    "FrameVectors",
    "POOLINGS",
    "Pool",
    "Prompted",
    "Residual",
    "ScaledInput",
    "ScaledShifted",
    "SeriesPatches",
    "Skip",
    "Solvable",
    "TaskHead",
    "VectorHead",
    "Wrapper",
    "as_tokens",
    "build_head",
    "evaluating",
    "reverse_gradient",
    "unwrap",
    "wrap",
]
