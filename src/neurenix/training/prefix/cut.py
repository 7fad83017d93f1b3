"""Where to cut a graph so that little is stored and little of the frozen work is done again: a minimum cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isinf


@dataclass(frozen=True)
class Step:
    """One value of a graph that depends on nothing that is trained.

    needs: names of the steps that it is computed from. stored: bytes per sample to keep it, inf where it cannot be
    kept. repeated: price in bytes per sample of computing it again; inf for what the graph is given.
    wanted: something that is trained, or random, reads it.
    """

    name: str
    needs: tuple[str, ...]
    stored: float
    repeated: float
    wanted: bool


def minimum_cut(steps: Sequence[Step]) -> list[str] | None:
    """Names of the steps to store, in their order, so that all that is wanted follows from them; None if none do.

    Minimises  Σ stored(v) over the stored  +  Σ repeated(v) over those computed again.  Each step is an edge in → out
    of capacity stored(v); source → in has capacity repeated(v); u.out → v.in is unbounded where v needs u, and so is
    out → sink where v is wanted. A cut is then such a choice, and its capacity the price; the smallest one is found
    by the largest flow (Ford & Fulkerson, 1956).
    """
    import networkx

    graph = networkx.DiGraph()
    graph.add_nodes_from(("source", "sink"))
    for step in _ancestors(steps):
        _add(graph, (step.name, "in"), (step.name, "out"), step.stored)
        _add(graph, "source", (step.name, "in"), step.repeated)
        for need in step.needs:
            _add(graph, (need, "out"), (step.name, "in"), inf)
        if step.wanted:
            _add(graph, (step.name, "out"), "sink", inf)
    try:
        _, (before, _) = networkx.minimum_cut(graph, "source", "sink")
    except networkx.NetworkXUnbounded:
        return None
    return [step.name for step in steps if (step.name, "in") in before and (step.name, "out") not in before]


def _add(graph: object, start: object, end: object, capacity: float) -> None:
    attributes = {} if isinf(capacity) else {"capacity": capacity}  # networkx: no capacity is an unbounded one
    graph.add_edge(start, end, **attributes)  # type: ignore[attr-defined]


def _ancestors(steps: Sequence[Step]) -> list[Step]:
    """The steps that anything wanted is computed from, itself included."""
    known = {step.name: step for step in steps}
    found: set[str] = set()
    open_names = [step.name for step in steps if step.wanted]
    while open_names:
        name = open_names.pop()
        if name not in found:
            found.add(name)
            open_names += known[name].needs
    return [step for step in steps if step.name in found]
