"""Gradual self-training, through intermediate domains that are given or found."""

from .adapt import adapt as adapt
from .ordering import ORDERS as ORDERS
from .ordering import domain_score as domain_score
from .ordering import geodesic_progress as geodesic_progress
from .path import GradualPath as GradualPath
from .path import Step as Step
from .pseudo_labels import LABELS as LABELS
from .pseudo_labels import PseudoLabelled as PseudoLabelled
from .pseudo_labels import confidence as confidence
from .pseudo_labels import confident_places as confident_places
from .pseudo_labels import hard_labels as hard_labels
from .pseudo_labels import soft_labels as soft_labels
from .self_training import GradualSelfTraining as GradualSelfTraining
from .shift import cycle_disagreement as cycle_disagreement
from .shift import mixing as mixing
from .shift import positions as positions
from .windows import equal_windows as equal_windows
from .windows import next_window as next_window

__all__ = [
    "GradualPath",
    "GradualSelfTraining",
    "LABELS",
    "ORDERS",
    "PseudoLabelled",
    "Step",
    "adapt",
    "confidence",
    "confident_places",
    "cycle_disagreement",
    "domain_score",
    "equal_windows",
    "geodesic_progress",
    "hard_labels",
    "mixing",
    "next_window",
    "positions",
    "soft_labels",
]
