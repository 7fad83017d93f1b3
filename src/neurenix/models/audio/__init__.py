"""Audio families, one file each; importing a file enters its architectures into ARCHITECTURES."""

from . import jukebox as jukebox

__all__ = ["jukebox"]
