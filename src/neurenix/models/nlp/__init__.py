"""Text families, one file each; importing a file enters its architectures into ARCHITECTURES."""

from . import bert as bert
from . import gpt2 as gpt2
from . import marian as marian
from . import roberta as roberta
from . import t5 as t5
from ._generation import generate as generate

__all__ = ["bert", "generate", "gpt2", "marian", "roberta", "t5"]
