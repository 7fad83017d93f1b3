"""What a source hands over, and whether the network may be used."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CONFIGURATION = "config.json"


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A weights file on this machine.

    folder: where its configuration and tokenizer lie; None when it has none.
    sha256: what the file must hash to (whole or a published prefix); None when nobody states it.
    revision: the hub's commit; None elsewhere.
    renewable: whether a damaged file can be fetched anew.
    advice: what to do when the file stays damaged after that.
    """

    path: Path
    folder: Path | None = None
    sha256: str | None = None
    revision: str | None = None
    renewable: bool = False
    advice: str = ""


def is_offline() -> bool:
    """Whether the hub's variables ask for no network, now or when the hub's client was imported."""
    from huggingface_hub import constants

    asked = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return asked.upper() in ("1", "ON", "YES", "TRUE") or constants.is_offline_mode()
