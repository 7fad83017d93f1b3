"""Blocks: tensor in, tensor out. They know neither pretrained weights nor training."""

from .bottleneck import Adapted as Adapted
from .bottleneck import AdaptedInParallel as AdaptedInParallel
from .bottleneck import AdaptedJoin as AdaptedJoin
from .bottleneck import AdaptedNorm as AdaptedNorm
from .bottleneck import AdaptedOutput as AdaptedOutput
from .bottleneck import Bottleneck as Bottleneck
from .heads import ACTIVATIONS as ACTIVATIONS
from .heads import build_head as build_head
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
    "POOLINGS",
    "Pool",
    "Prompted",
    "ScaledInput",
    "ScaledShifted",
    "Solvable",
    "TaskHead",
    "VectorHead",
    "Wrapper",
    "as_tokens",
    "build_head",
    "evaluating",
    "unwrap",
    "wrap",
]
