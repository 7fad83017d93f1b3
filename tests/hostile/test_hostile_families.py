"""Checkpoints of a stranger, in every family's own form: nothing in them is run, and each gets an error with a name."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from tests.hostile.family_attacks import cases
from tests.hostile.family_files import FAMILIES, LINK, Files
from tests.hostile.test_hostile_weights import load_all

PROVE = bool(os.environ.get("NEURENIX_PROVE"))
NAMED = ("UnsafeFileError", "DamagedFileError", "WeightsMismatchError", "WeightsNotFoundError", "ConfigurationError")


def lay(folder: Path, model: str, files: Files, file: str, written: dict[int, Path]) -> None:
    """written: where contents lie already, by their identity."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if id(content) in written:
            (folder / name).hardlink_to(written[id(content)])
        elif content.startswith(LINK):
            (folder / name).symlink_to(content.removeprefix(LINK).decode())
        else:
            (folder / name).write_bytes(content)
    (folder / "case.json").write_text(json.dumps({"model": model, "file": file}))


def test_hostile_checkpoints_of_every_family(tmp_path: Path) -> None:
    folder, canary = tmp_path / "files", tmp_path / "canary"
    good: dict[int, Path] = {}
    for family in FAMILIES if PROVE else FAMILIES[::2]:
        if family.small:
            lay(tmp_path / "warm" / family.model, family.model, family.files, family.file, {})
            good |= {id(content): tmp_path / "warm" / family.model / name for name, content in family.files.items()}
    attacks: dict[str, str] = {}
    for number, (family, what, (files, file)) in enumerate(cases(canary, PROVE)):
        lay(folder / f"{number:04d}", family.model, files, file, good)
        attacks[f"{number:04d}"] = f"{family.model}: {what}"
    found = load_all(folder, "families", timeout=900 if PROVE else 150)
    assert found["seen"] == [] and not list(tmp_path.rglob("canary"))
    assert {name: answer for name, (answer,) in found["warm"].items() if answer != "loaded"} == {}
    answers = {attacks[name]: (name, answer) for name, (answer,) in found["answers"].items()}
    assert {what: answer for what, (_, answer) in answers.items() if not answer.startswith(NAMED)} == {}
    assert {what: answer for what, (name, answer) in answers.items() if str(folder / name) not in answer} == {}
    shutil.rmtree(folder)
    print(
        f"{len(answers)} hostile checkpoints of {len(FAMILIES)} families, 0 executed, all refused by name; "
        f"at most {found['above']:.0f} MiB taken"
    )
    assert len(answers) >= 40 and found["above"] < 300
