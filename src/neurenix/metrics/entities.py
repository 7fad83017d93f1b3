"""Metrics of what tagged tokens name as a whole: persons, places, terms of several words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ._metric import TOKENS, metric
from ._task import TaskKind

if TYPE_CHECKING:
    import torchmetrics

Entity = tuple[str, int, int]  # what it is, its first and its last token
_NONE, _BEGINS, _INSIDE = "O", "B-", "I-"


@metric("entity_f1", tasks=TOKENS, by_sequence=True)
def entity_f1(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Harmonic mean of precision and recall of whole entities, whose tags are B-…, I-… and O; all kinds together."""
    from ._accumulators import EntityF1

    return EntityF1()


def entities_of(tags: Sequence[str]) -> set[Entity]:
    """The entities in one sequence of tags B-kind, I-kind and O (IOB2), as CoNLL-2000's evaluation reads them.

    An entity goes on with I- of its kind. An I- that follows nothing of its kind begins one, as a B- does.
    Tjong Kim Sang & Buchholz, Introduction to the CoNLL-2000 Shared Task: Chunking, CoNLL 2000, section 2.
    """
    found: list[Entity] = []
    before = ""
    for place, tag in enumerate(tags):
        kind = "" if tag == _NONE else tag[len(_BEGINS) :]
        if kind and kind == before and tag.startswith(_INSIDE):
            found[-1] = (kind, found[-1][1], place)
        elif kind:
            found.append((kind, place, place))
        before = kind
    return set(found)


def check_entity_tags(names: Sequence[str]) -> None:
    """Raise ConfigurationError for names of tags that mark no entities."""
    strange = [name for name in names if name != _NONE and (name[:2] not in (_BEGINS, _INSIDE) or not name[2:])]
    if strange or not names:
        came = f"among the tags are {', '.join(strange[:5])}" if strange else "the tags have no names"
        raise ConfigurationError(
            f"metric 'entity_f1' counts entities that are tagged as B-kind, I-kind and O, and {came}. Give the tags "
            "such names (TaggedTexts takes them), or leave the metric out."
        )
