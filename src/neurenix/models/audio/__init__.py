"""Audio families, one file each; importing a file enters its architectures into ARCHITECTURES."""

from . import deepspeech2 as deepspeech2
from . import jukebox as jukebox
from . import music_transformer as music_transformer
from . import panns as panns
from . import vggish as vggish
from . import voice_encoder as voice_encoder
from . import wav2vec2 as wav2vec2

__all__ = ["deepspeech2", "jukebox", "music_transformer", "panns", "vggish", "voice_encoder", "wav2vec2"]
