"""Adapt a model to a domain without labels."""

from . import gradual as gradual
from . import methods as methods
from . import selection as selection
from ._alarm_record import AlarmRecord as AlarmRecord
from ._choice import list_adaptation_methods as list_adaptation_methods
from .adapter import DomainAdapter as DomainAdapter
from .comparison import AdaptationComparison as AdaptationComparison
from .comparison import compare_adaptations as compare_adaptations
from .method import METHODS as METHODS
from .method import AdaptationMethod as AdaptationMethod
from .norms import NORMS as NORMS
from .verdict import Verdict as Verdict
from .verdict import judge_adaptation as judge_adaptation

__all__ = [
    "METHODS",
    "NORMS",
    "AdaptationComparison",
    "AdaptationMethod",
    "AlarmRecord",
    "DomainAdapter",
    "Verdict",
    "compare_adaptations",
    "gradual",
    "judge_adaptation",
    "list_adaptation_methods",
    "methods",
    "selection",
]
