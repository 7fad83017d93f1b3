"""Models made to read what their weights were not made for: other channels, sizes, and kinds of samples."""

from .adapt_channels import adapt_channels as adapt_channels
from .adapt_resolution import adapt_resolution as adapt_resolution
from .adapt_to_series import adapt_to_series as adapt_to_series
from .adapt_to_sounds import adapt_to_sounds as adapt_to_sounds
from .adapt_to_tables import adapt_to_tables as adapt_to_tables
from .adapt_to_video import adapt_to_video as adapt_to_video
