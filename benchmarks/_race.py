"""Runs contestants in turn, each in a process of its own, and writes what they took beside what they reached.

A benchmark is a file that calls `race(...)` with its contestants; started with --run NAME it is one of them and prints
one line of JSON. Medians over rounds; seconds are those of the whole job after the imports, unless a benchmark says so.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from _device import DEVICE
from _results import begun, table, write, write_page

REACHED = ("accuracy", "trained", "trained_share", "file_mib")  # figures that do not depend on what else runs
UNTIMED = "NEURENIX_BENCH_UNTIMED"  # set where contestants are only asked what they reach
Job = Callable[[int], Mapping[str, float]]


def race(
    name: str,
    title: str,
    contestants: Mapping[str, Job],
    ours: str,
    *,
    rounds: int = 5,
    timeout: float = 3600,
    arguments: Sequence[str] = (),
    note: str = "",
) -> None:
    """Run every contestant once in each round, in turn, with the round's number as its seed; goes on where it ended.

    contestants: name -> job(seed), which gives {"seconds": …} and more; extra figures are told as they are. One that
    ran less than the whole job tells "seconds" scaled to it, and what it took as "measured_seconds". One named "limit"
    does only what cannot be left out.
    ours: the contestant to whose time the others' are compared.
    arguments: what a benchmark took from its command line, for its contestants to find again. note: a sentence that is
    told above the table.
    """
    options = _options(title, contestants, rounds)
    if options.run:
        _be(contestants[options.run], options.seed)
    name = name if DEVICE.type == "cpu" else f"{name}-{DEVICE.type}"
    chosen = [contestant for contestant in contestants if contestant in (options.only or contestants)]
    if options.at_once:
        os.environ[UNTIMED] = "1"
        reached(name, title, chosen, options, timeout, arguments)
        return
    os.environ.pop(UNTIMED, None)
    measured = begun(name, chosen, options.rounds)
    for place in range(len(measured[chosen[0]]), options.rounds):
        for contestant in chosen[place % len(chosen) :] + chosen[: place % len(chosen)]:
            figures = _run(contestant, place, timeout, arguments)
            measured[contestant].append(figures)
            print(f"{name} round {place + 1} {contestant}: {_shown(figures)}", flush=True)
        write(name, title, measured, ours, note)
        write_page()
    print(table(measured, ours))


def reached(
    name: str, title: str, chosen: Sequence[str], options: argparse.Namespace, timeout: float, arguments: Sequence[str]
) -> None:
    """What contestants reach in all rounds, several at once: nothing is timed, and the table has a name of its own."""

    def reach(job: tuple[int, str]) -> dict[str, float]:
        place, contestant = job
        figures = _run(contestant, place, timeout, arguments)
        print(f"{name} round {place + 1} {contestant}: {_shown(figures)}", flush=True)
        if "accuracy" not in figures:
            sys.exit(f"{contestant} tells no accuracy, and --at-once has nothing else to tell; run whole jobs")
        return {figure: value for figure, value in figures.items() if figure in REACHED}

    jobs = [(place, contestant) for place in range(options.rounds) for contestant in chosen]
    with ThreadPoolExecutor(options.at_once) as pool:
        found = list(pool.map(reach, jobs))
    measured = {contestant: found[place :: len(chosen)] for place, contestant in enumerate(chosen)}
    write(f"{name}-accuracy", title, measured, chosen[0], f"{options.at_once} at a time, so that nothing is timed.")
    write_page()


def _options(title: str, contestants: Mapping[str, Job], rounds: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--run", choices=list(contestants), help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("NEURENIX_BENCH_ROUNDS", rounds)))
    parser.add_argument("--at-once", type=int, help="run so many at a time, for what they reach: nothing is timed")
    parser.add_argument("--only", nargs="+", choices=list(contestants), help="contestants to run, and no others")
    return parser.parse_args()


def _be(job: Job, seed: int) -> None:
    """Do a contestant's job, tell its figures and end."""
    figures = dict(job(seed))
    figures["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("RESULT " + json.dumps(figures), flush=True)
    os._exit(0)  # what a peer leaves running is not waited for


def _run(contestant: str, seed: int, timeout: float, arguments: Sequence[str]) -> dict[str, float]:
    """The figures that a contestant tells, with the seconds that its process took from start to end."""
    command = [sys.executable, sys.argv[0], *arguments, "--run", contestant, "--seed", str(seed)]
    with tempfile.TemporaryDirectory() as home:  # nothing that neurenix kept of an earlier round helps a later one
        surroundings = {**os.environ, "NEURENIX_HOME": home}
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=surroundings)
        seconds = time.perf_counter() - started
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        sys.exit(
            f"{contestant} gave no result (exit status {done.returncode}):\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    return {**json.loads(lines[-1].removeprefix("RESULT ")), "process_seconds": seconds}


def _shown(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
