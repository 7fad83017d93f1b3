"""What a race measured, as JSON, as a table, and on the page with all tables."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from _device import DEVICE

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "benchmarks" / "results"
RESULTS = Path(os.environ.get("NEURENIX_BENCH_RESULTS", KEPT))  # another folder for trials, which leave the page alone
PAGE = ROOT / "docs" / "benchmarks.md"
PACKAGES = ("torch", "torchvision", "timm", "transformers", "peft", "sentence-transformers", "openvino", "lightning")
PACKAGES += ("fastai", "keras", "numpy")
LIMIT = "limit"
LAST = ("measured_seconds", "process_seconds", "peak_mib")  # columns that come after a benchmark's own
INTRODUCTION = """\
# Benchmarks

Each contestant runs in a process of its own, one after another, in turn over the rounds, with an empty cache folder;
the figures are medians, and seconds have the fastest and the slowest round behind them; of accuracy the mean ±
standard deviation over the rounds, which are its seeds. `seconds` are those of the whole job after the imports;
`times ours` is their ratio to neurenix', so above 1 is slower than neurenix. `process_seconds` are those of the whole
process, with imports, the making of its data and the evaluation afterwards. `limit` does only what no way of doing
the job can leave out. Where a contestant ran less than the whole job, `measured_seconds` are what it ran, and its
`seconds` are scaled from that, as the note above the table and the benchmark's file say; its accuracy is then left
out, and `process_seconds` belong to what ran. A table without seconds tells what contestants reach, several of them
run at a time (`--at-once`). Each table names its machine. `make bench` runs them all again and
writes this page; broken off, it goes on with the missing rounds.

EfficientNet-Lite0 and MiniLM have real weights. Those of ResNet-50 and ViT-S are random, so their cosines and
accuracies say little; ResNet-50's branches do not begin with 0, as timm's do, which a runtime could leave out."""

Measured = dict[str, list[dict[str, float]]]


def table(measured: Measured, ours: str) -> str:
    """One line for each contestant, and the ratio to the limit below; no ratios where several ran at once, untimed."""
    figures = _columns(measured)
    if "seconds" not in figures:
        return "\n".join(
            [
                "| | " + " | ".join(figures) + " |",
                "|---" * (len(figures) + 1) + "|",
                *(f"| {name} | {' | '.join(_cell(rows, key) for key in figures)} |" for name, rows in measured.items()),
            ]
        )
    lines = [
        "| | " + " | ".join(figures) + f" | times {'ours' if ours == 'neurenix' else ours} |",
        "|---" * (len(figures) + 2) + "|",
    ]
    base = _median(measured[ours], "seconds") if measured.get(ours) else float("nan")
    for contestant, rows in measured.items():
        cells = [_cell(rows, figure) for figure in figures]
        ratio = "" if contestant == ours or not measured.get(ours) else f"{_median(rows, 'seconds') / base:.2f}"
        lines.append(f"| {contestant} | " + " | ".join(cells) + f" | {ratio} |")
    if measured.get(LIMIT) and measured.get(ours):
        lines += ["", f"{ours} / {LIMIT}: {base / _median(measured[LIMIT], 'seconds'):.2f}"]
    return "\n".join(lines)


def write(name: str, title: str, measured: Measured, ours: str, note: str) -> None:
    """NAME.json with every figure of every round, and NAME.md with the table."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    rounds = min(len(rows) for rows in measured.values())
    record = {
        "title": title,
        "note": note,
        "date": datetime.date.today().isoformat(),
        **_conditions(),
        "rounds": rounds,
        "ours": ours,
        "measured": measured,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    taken = f"medians of {rounds} rounds" if rounds > 1 else "one round"
    about = f"{record['date']}, {record['machine']}, torch {_version('torch')}, {taken}. {note}".rstrip()
    (RESULTS / f"{name}.md").write_text(f"### {title}\n\n{about}\n\n{table(measured, ours)}\n")


def begun(name: str, contestants: Sequence[str], rounds: int) -> Measured:
    """The rounds of a race that was broken off: of the same contestants, code, machine, versions and settings."""
    file = RESULTS / f"{name}.json"
    found = json.loads(file.read_text()) if file.is_file() else {}
    same = all(found.get(key) == value for key, value in _conditions().items())
    if not same or list(found["measured"]) != list(contestants) or found["rounds"] >= rounds:
        return {contestant: [] for contestant in contestants}
    return {contestant: rows[: found["rounds"]] for contestant, rows in found["measured"].items()}


def _conditions() -> dict[str, Any]:
    """What figures have to have in common to be put beside each other."""
    return {
        "machine": _machine(),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
        "settings": {key: os.environ[key] for key in sorted(os.environ) if _is_setting(key)},
        "code": _code(),
    }


def _code() -> str:
    """Digest of the library and of the benchmarks."""
    digest = hashlib.sha256()
    for file in sorted((*(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py"))):
        digest.update(file.relative_to(ROOT).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def write_page() -> None:
    """Put all tables that there are on one page, in the order of their names."""
    if RESULTS == KEPT:
        tables = [path.read_text().strip() for path in sorted(RESULTS.glob("*.md"))]
        PAGE.write_text("\n\n".join([INTRODUCTION, *tables]) + "\n")


def _columns(measured: Measured) -> list[str]:
    found = dict.fromkeys(figure for rows in measured.values() for row in rows for figure in row)
    return [figure for figure in found if figure not in LAST] + [figure for figure in LAST if figure in found]


def _cell(rows: Sequence[Mapping[str, float]], figure: str) -> str:
    if not rows or any(figure not in row for row in rows):
        return ""
    values = [row[figure] for row in rows]
    if figure == "accuracy" and len(values) > 1:
        return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"
    shown = f"{statistics.median(values):.4g}"
    return shown + f" [{min(values):.4g}-{max(values):.4g}]" * (figure == "seconds" and len(values) > 1)


def _median(measured: Sequence[Mapping[str, float]], figure: str) -> float:
    return statistics.median(row[figure] for row in measured)


def _machine() -> str:
    listing = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    model = next((line.split(":")[1].strip() for line in listing.splitlines() if line.startswith("model name")), "")
    processor = f"{model or platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    return processor if DEVICE.type != "cuda" else f"{torch.cuda.get_device_name(DEVICE)} beside {processor}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _is_setting(key: str) -> bool:
    return key.startswith("NEURENIX_BENCH_") and key not in ("NEURENIX_BENCH_RESULTS", "NEURENIX_BENCH_ROUNDS")
