"""Which layers learn when: each strategy turns the facts of a job into a plan, and says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ConfigurationError
from ..models import PretrainedModel, covered, display_name, match_layers
from ..nn import TaskHead
from ..registry import Registry
from ..training import FreezeSchedule, Phase, constant_schedule, progressive_schedule
from .closed_form_head import is_solvable
from .heads._kind import start_of


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a strategy may look at. frozen: qualified names that the caller keeps frozen whatever the strategy."""

    model: PretrainedModel
    frozen: tuple[str, ...]
    samples: int
    classes: int
    epochs: int
    unfreeze_by: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """freezing: what is frozen in each epoch. closed_form: solve the head first. reason: why, in a sentence.

    is_news: the user left the choice open, and is told the reason.
    """

    freezing: FreezeSchedule
    closed_form: bool = False
    reason: str = ""
    is_news: bool = False

    def announced(self) -> Plan:
        """Itself, the reason printed where it is news."""
        if self.is_news:
            print(f"neurenix: {self.reason}")
        return self


STRATEGIES: Registry[Callable[[Job], Plan]] = Registry("strategy")


@STRATEGIES.register("full")
def full(job: Job) -> Plan:
    """Every layer learns from the first step."""
    if job.frozen:
        raise ConfigurationError(
            "strategy='full' trains every layer, but freeze_layers names some; leave one of the two out "
            "(freeze_layers alone means strategy='partial')."
        )
    return Plan(freezing=constant_schedule(()), reason="all layers are trained")


@STRATEGIES.register("partial")
def partial(job: Job) -> Plan:
    """All but the layers in freeze_layers learn; without any, the last stage and the head."""
    frozen = job.frozen or tuple(_stages(job.model)[:-1])
    return Plan(freezing=constant_schedule(frozen), reason="the frozen layers keep what they know, the others learn")


@STRATEGIES.register("head", "linear_probe")
def head(job: Job) -> Plan:
    """The body stays frozen; the head is solved in closed form and then trained."""
    return Plan(
        freezing=FreezeSchedule((Phase("head", ("trunk", *job.frozen)),)),
        closed_form=is_solvable(job.model.head),
        reason="only the head is trained",
    )


@STRATEGIES.register("progressive")
def progressive(job: Job) -> Plan:
    """The head first, then one stage more at a time from the top."""
    stages = [stage for stage in _stages(job.model) if not covered(stage, job.frozen)]
    names = [display_name(job.model, stage) for stage in stages]
    schedule = progressive_schedule(stages, names, job.epochs, job.unfreeze_by == "plateau")
    phases = tuple(Phase(phase.name, (*job.frozen, *phase.frozen)) for phase in schedule.phases)
    return Plan(
        freezing=FreezeSchedule(phases, schedule.starts),
        reason=f"the head first, then {len(phases) - 1} steps down to {names[0] if names else 'the head'}",
    )


@STRATEGIES.register("lp_ft")
def lp_ft(job: Job) -> Plan:
    """The head solved in closed form, then everything trained: a random head would distort the body first.

    Kumar et al., Fine-Tuning can Distort Pretrained Features, ICLR 2022, section 3.4.
    """
    if start_of(job.model.head_record) in ("zero", "by_name"):
        raise ConfigurationError(
            f"strategy='lp_ft' solves the head in closed form, and it has start={start_of(job.model.head_record)!r}; "
            "leave start out, or take another strategy."
        )
    if isinstance(job.model.head, TaskHead) and not is_solvable(job.model.head):
        raise ConfigurationError(
            f"strategy='lp_ft' solves a linear head in closed form, and this model's head does {job.model.head.task}; "
            "take 'progressive', 'partial' or 'full'."
        )
    return Plan(
        freezing=constant_schedule(job.frozen),
        closed_form=True,
        reason="the head is solved in closed form before the body moves",
    )


@STRATEGIES.register("auto")
def auto(job: Job) -> Plan:
    """From the amount of data: few samples per class leave little to learn the body from.

    Below 5 samples per class the head alone, below 1,000 lp_ft, above that everything at once.
    """
    per_class = job.samples / max(1, job.classes)
    name = "head" if per_class < 5 else "lp_ft" if per_class < 1000 or job.frozen else "full"
    begins_otherwise = start_of(job.model.head_record) in ("zero", "by_name")
    if name == "lp_ft" and (begins_otherwise or not is_solvable(job.model.head)):
        name = "partial" if job.frozen else "full"
    plan = STRATEGIES[name](job)
    reason = f"{job.samples} samples, {per_class:.0f} per class: strategy={name!r}, because {plan.reason}"
    return Plan(freezing=plan.freezing, closed_form=plan.closed_form, reason=reason, is_news=True)


def _stages(model: PretrainedModel) -> list[str]:
    """Qualified names of the stages, from input to output."""
    return [match_layers(model, stage)[0] for stage in model.stages]
