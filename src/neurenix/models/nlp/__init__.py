"""Text families, one file each; importing a file enters its architectures into ARCHITECTURES."""

from . import bert as bert, roberta as roberta
