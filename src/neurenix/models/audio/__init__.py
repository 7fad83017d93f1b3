"""Audio families, one file each; importing a file enters its architectures into ARCHITECTURES."""

from . import jukebox as jukebox
from . import music_transformer as music_transformer

__all__ = ["jukebox", "music_transformer"]
