"""What happens beside training: stop early, save, show, log. Names and hooks are those of Keras."""

from __future__ import annotations

from ._base import CALLBACKS as CALLBACKS
from ._base import Callback as Callback
from ._base import Run as Run
from ._base import check_callback as check_callback
from .csv_logger import CSVLogger as CSVLogger
from .early_stopping import EarlyStopping as EarlyStopping
from .learning_rate_monitor import LearningRateMonitor as LearningRateMonitor
from .model_checkpoint import ModelCheckpoint as ModelCheckpoint
from .progress_bar import ProgressBar as ProgressBar
from .tracker import Tracker as Tracker

__all__ = [
    "CALLBACKS",
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "LearningRateMonitor",
    "ModelCheckpoint",
    "ProgressBar",
    "Run",
    "Tracker",
    "check_callback",
]
