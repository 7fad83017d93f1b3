"""Pictures of what a run did."""

from __future__ import annotations

from .domain_gap import plot_domain_gap as plot_domain_gap
from .plots import confusion_matrix as confusion_matrix
from .plots import costs as costs
from .plots import learning_curves as learning_curves
from .plots import save_report_figure as save_report_figure

__all__ = ["confusion_matrix", "costs", "learning_curves", "plot_domain_gap", "save_report_figure"]
