"""Text families, one file each; importing a file enters its architectures into ARCHITECTURES."""

from . import bert as bert
from . import roberta as roberta

__all__ = ["bert", "roberta"]
