"""Models made to read what their weights were not made for: other channels, sizes, and kinds of samples."""

from .channels import adapt_channels as adapt_channels
from .length import adapt_length as adapt_length
from .resolution import adapt_resolution as adapt_resolution
from .series import adapt_to_series as adapt_to_series
from .sounds import adapt_to_sounds as adapt_to_sounds
from .tables import adapt_to_tables as adapt_to_tables
from .video import adapt_to_video as adapt_to_video

__all__ = [
    "adapt_channels",
    "adapt_length",
    "adapt_resolution",
    "adapt_to_series",
    "adapt_to_sounds",
    "adapt_to_tables",
    "adapt_to_video",
]
