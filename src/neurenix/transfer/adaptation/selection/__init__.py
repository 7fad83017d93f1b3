"""Choosing among adapted models without target labels."""

from . import criteria as criteria
from .adaptation_metrics import AdaptationMetrics as AdaptationMetrics
from .adaptation_metrics import judged_rows as judged_rows
from .choice import LabelFreeChoice as LabelFreeChoice
from .choice import SelectionGap as SelectionGap
from .chooser import LabelFreeChooser as LabelFreeChooser
from .criterion import CRITERIA as CRITERIA
from .criterion import Criterion as Criterion
from .criterion import Evidence as Evidence
from .criterion import criteria_for as criteria_for
from .guards import Guard as Guard
from .guards import guards_for as guards_for

__all__ = [
    "CRITERIA",
    "AdaptationMetrics",
    "Criterion",
    "Evidence",
    "Guard",
    "LabelFreeChoice",
    "LabelFreeChooser",
    "SelectionGap",
    "criteria",
    "criteria_for",
    "guards_for",
    "judged_rows",
]
