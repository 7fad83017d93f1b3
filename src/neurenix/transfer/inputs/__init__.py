"""Models made to read what their weights were not made for: other channels, sizes, and kinds of samples."""

from .adapt_channels import adapt_channels as adapt_channels
from .adapt_resolution import adapt_resolution as adapt_resolution
