"""Code blocks of Markdown files, to be run as they are printed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SPEC = ROOT / "tests" / "spec" / "transfer_learning.md"
README = ROOT / "README.md"

_FENCE = re.compile(r"^```(?P<language>\w*)\s*$")
_HEADING = re.compile(r"^#{1,6} (?P<title>.+?)\s*$")


@dataclass(frozen=True)
class Block:
    """line: of the first line of code, counted from 1. section: the heading above it. number: 0 for its first block."""

    file: Path
    line: int
    section: str
    number: int
    language: str
    source: str

    def run(self, namespace: dict[str, Any]) -> dict[str, Any]:
        """Execute in `namespace`, which is returned; a traceback names the file's own lines."""
        code = compile("\n" * (self.line - 1) + self.source, str(self.file), "exec")
        exec(code, namespace)
        return namespace

    def __str__(self) -> str:
        return f"{self.file.name}:{self.line}"


def code_blocks(file: Path, *, section: str | None = None, language: str | None = "python") -> list[Block]:
    """All blocks of a file in order; `section` and `language` narrow them (language=None takes every language)."""
    blocks = [
        block for block in _all_blocks(file) if section in (None, block.section) and language in (None, block.language)
    ]
    if not blocks:
        raise LookupError(f"{file} has no {language} block under {section!r}")
    return blocks


def _all_blocks(file: Path) -> list[Block]:
    blocks: list[Block] = []
    section, opened, language = "", None, ""
    lines = file.read_text(encoding="utf-8").splitlines()
    for number, text in enumerate(lines):
        fence = _FENCE.match(text)
        if opened is None and fence:
            opened, language = number + 1, fence["language"]
        elif opened is not None and fence:
            earlier = sum(block.section == section for block in blocks)
            source = "\n".join(lines[opened:number]) + "\n"
            blocks.append(Block(file, opened + 1, section, earlier, language, source))
            opened = None
        elif opened is None and (heading := _HEADING.match(text)):
            section = heading["title"]
    if opened is not None:
        raise ValueError(f"{file}:{opened} opens a code block that is never closed")
    return blocks
