"""Audio families, one file each; importing a file enters its architectures into ARCHITECTURES."""

from . import jukebox as jukebox
from . import music_transformer as music_transformer
from . import panns as panns
from . import vggish as vggish

__all__ = ["jukebox", "music_transformer", "panns", "vggish"]
