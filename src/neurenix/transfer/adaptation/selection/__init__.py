"""Choosing among adapted models without target labels."""

from . import criteria as criteria
from .criterion import CRITERIA as CRITERIA
from .criterion import Criterion as Criterion
from .criterion import Evidence as Evidence
from .criterion import criteria_for as criteria_for

__all__ = ["CRITERIA", "Criterion", "Evidence", "criteria", "criteria_for"]
