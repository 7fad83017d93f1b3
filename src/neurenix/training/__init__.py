"""The loop, what it runs, and what it needs: losses, optimizers, schedules, freezing, history."""

from .closed_form import ClosedFormHead as ClosedFormHead
from .closed_form import classification_head as classification_head
from .closed_form import multi_label_head as multi_label_head
from .closed_form import ridge_head as ridge_head
from .discriminant import discriminant_head as discriminant_head
from .evaluation import answers as answers
from .evaluation import outputs_of as outputs_of
from .freezing import FreezeSchedule as FreezeSchedule
from .freezing import Phase as Phase
from .freezing import above as above
from .freezing import apply_phase as apply_phase
from .freezing import constant_schedule as constant_schedule
from .freezing import expanded as expanded
from .freezing import frozen_now as frozen_now
from .freezing import progressive_schedule as progressive_schedule
from .freezing import released as released
from .freezing import topmost as topmost
from .history import History as History
from .loop import Loop as Loop
from .losses import LOSSES as LOSSES
from .losses import LossOptions as LossOptions
from .losses import balanced_class_weights as balanced_class_weights
from .objective import Objective as Objective
from .objective import StepResult as StepResult
from .objective import Supervised as Supervised
from .objective import labelled as labelled
from .optimizers import OPTIMIZERS as OPTIMIZERS
from .optimizers import Rates as Rates
from .optimizers import build_optimizer as build_optimizer
from .optimizers import check_rate as check_rate
from .optimizers import resolve_rates as resolve_rates
from .own_losses import OwnLosses as OwnLosses
from .prefix import FEATURES as FEATURES
from .prefix import Embedding as Embedding
from .prefix import Features as Features
from .prefix import FrozenLayers as FrozenLayers
from .prefix import OrdinaryFeed as OrdinaryFeed
from .prefix import ReuseOptions as ReuseOptions
from .processes import Processes as Processes
from .run_folder import MODEL_FOLDER as MODEL_FOLDER
from .run_folder import RUN_FILE as RUN_FILE
from .run_folder import START as START
from .run_folder import RunFolder as RunFolder
from .run_folder import runs_root as runs_root
from .runs import RunOptions as RunOptions
from .runs import fit_in_run as fit_in_run
from .schedules import SCHEDULES as SCHEDULES
from .settings import LoopSettings as LoopSettings

__all__ = [
    "ClosedFormHead",
    "FreezeSchedule",
    "History",
    "LOSSES",
    "Loop",
    "LoopSettings",
    "LossOptions",
    "MODEL_FOLDER",
    "OPTIMIZERS",
    "OrdinaryFeed",
    "Objective",
    "OwnLosses",
    "Phase",
    "Processes",
    "RUN_FILE",
    "Embedding",
    "Features",
    "FrozenLayers",
    "FEATURES",
    "ReuseOptions",
    "RunFolder",
    "Rates",
    "RunOptions",
    "SCHEDULES",
    "START",
    "StepResult",
    "Supervised",
    "above",
    "answers",
    "apply_phase",
    "balanced_class_weights",
    "build_optimizer",
    "classification_head",
    "discriminant_head",
    "check_rate",
    "constant_schedule",
    "expanded",
    "fit_in_run",
    "frozen_now",
    "labelled",
    "multi_label_head",
    "outputs_of",
    "progressive_schedule",
    "released",
    "resolve_rates",
    "ridge_head",
    "runs_root",
    "topmost",
]
