"""The methods of domain adaptation, one file each; importing this enters them in METHODS."""

from .dann import DANN as DANN

__all__ = ["DANN"]
