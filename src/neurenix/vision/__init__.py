"""Images: what weights expect of them, preprocessing, transforms and the first-batch guard."""

from __future__ import annotations

from ._input import ImageInput as ImageInput
