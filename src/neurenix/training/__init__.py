"""The loop, what it runs, and what it needs: losses, optimizers, schedules, freezing, history."""

from .closed_form import ClosedFormHead as ClosedFormHead
from .closed_form import classification_head as classification_head
from .closed_form import ridge_head as ridge_head
from .evaluation import inference_mode_of as inference_mode_of
from .evaluation import outputs_of as outputs_of
from .freezing import FreezeSchedule as FreezeSchedule
from .freezing import Phase as Phase
from .freezing import apply_phase as apply_phase
from .freezing import constant_schedule as constant_schedule
from .freezing import expanded as expanded
from .freezing import progressive_schedule as progressive_schedule
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
from .optimizers import build_optimizer as build_optimizer
from .optimizers import resolve_rates as resolve_rates
from .schedules import SCHEDULES as SCHEDULES
from .settings import LoopSettings as LoopSettings
