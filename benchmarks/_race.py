"""Runs contestants in turn, each in a process of its own, and writes what they took beside what they reached.

A benchmark is a file that calls `race(...)` with its contestants; started with --run NAME it is one of them and prints
one line of JSON. Medians over rounds; seconds are those of the whole job after the imports, unless a benchmark says so.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "torchvision", "timm", "transformers", "peft", "sentence-transformers", "openvino", "lightning")
PACKAGES += ("fastai", "keras")
Job = Callable[[int], Mapping[str, float]]


def race(
    name: str,
    title: str,
    contestants: Mapping[str, Job],
    ours: str,
    *,
    rounds: int = 5,
    timeout: float = 3600,
) -> None:
    """Run every contestant once in each round, in turn, with the round's number as its seed.

    contestants: name -> job(seed), which gives {"seconds": …} and more; extra figures are told as they are.
    ours: the contestant to whose time the others' are compared.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--run", choices=list(contestants), help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("NEURENIX_BENCH_ROUNDS", rounds)))
    parser.add_argument("--only", nargs="+", choices=list(contestants), help="contestants to run, and no others")
    options = parser.parse_args()
    if options.run:
        figures = dict(contestants[options.run](options.seed))
        figures["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("RESULT " + json.dumps(figures), flush=True)
        os._exit(0)  # what a peer leaves running is not waited for
    chosen = [contestant for contestant in contestants if contestant in (options.only or contestants)]
    measured: dict[str, list[dict[str, float]]] = {contestant: [] for contestant in chosen}
    for place in range(options.rounds):
        for contestant in chosen[place % len(chosen) :] + chosen[: place % len(chosen)]:
            figures = _run(contestant, place, timeout)
            measured[contestant].append(figures)
            print(f"{name} round {place + 1} {contestant}: {_shown(figures)}", flush=True)
        _write(name, title, measured, ours)
    print(_table(measured, ours))


def _run(contestant: str, seed: int, timeout: float) -> dict[str, float]:
    command = [sys.executable, sys.argv[0], "--run", contestant, "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        sys.exit(
            f"{contestant} gave no result (exit status {done.returncode}):\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    return json.loads(lines[-1].removeprefix("RESULT "))


def _median(measured: Sequence[Mapping[str, float]], figure: str) -> float:
    return statistics.median(row[figure] for row in measured)


def _table(measured: Mapping[str, list[dict[str, float]]], ours: str) -> str:
    figures = list(dict.fromkeys(figure for rows in measured.values() for row in rows for figure in row))
    lines = ["| | " + " | ".join(figures) + " | times ours |", "|---" * (len(figures) + 2) + "|"]
    base = _median(measured[ours], "seconds") if measured.get(ours) else float("nan")
    for contestant, rows in measured.items():
        cells = [f"{_median(rows, figure):.4g}" if all(figure in row for row in rows) else "" for figure in figures]
        ratio = "" if contestant == ours else f"{_median(rows, 'seconds') / base:.2f}"
        lines.append(f"| {contestant} | " + " | ".join(cells) + f" | {ratio} |")
    return "\n".join(lines)


def _write(name: str, title: str, measured: Mapping[str, list[dict[str, float]]], ours: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    rounds = min(len(rows) for rows in measured.values())
    record = {
        "title": title,
        "date": datetime.date.today().isoformat(),
        "machine": _machine(),
        "versions": {package: _version(package) for package in PACKAGES},
        "rounds": rounds,
        "ours": ours,
        "measured": measured,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    heading = f"### {title}\n\n{record['date']}, {record['machine']}, medians of {rounds} rounds."
    (RESULTS / f"{name}.md").write_text(f"{heading}\n\n{_table(measured, ours)}\n")


def _machine() -> str:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    model = next((line.split(":")[1].strip() for line in flags.splitlines() if line.startswith("model name")), "")
    return f"{model or platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _shown(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
