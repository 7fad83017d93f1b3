"""What a look at the first batch found: certain mismatches stop, likely ones warn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputMismatchError, InputMismatchWarning


@dataclass(frozen=True)
class Finding:
    """One way in which inputs do not fit the weights.

    kind: short name, such as "range" or "channels". certain: nothing else explains what was seen.
    message: what was seen, what is expected, what to do.
    """

    kind: str
    certain: bool
    message: str


def report(findings: Sequence[Finding], *, stacklevel: int = 3) -> None:
    """Raise InputMismatchError with all certain findings, or warn of the others."""
    certain = [finding.message for finding in findings if finding.certain]
    if certain:
        raise InputMismatchError(" ".join(certain))
    for finding in findings:
        warnings.warn(finding.message, InputMismatchWarning, stacklevel=stacklevel)
