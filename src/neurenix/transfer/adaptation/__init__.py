"""Adapt a model to a domain without labels."""

from . import gradual as gradual
from . import methods as methods
from .method import METHODS as METHODS
from .method import AdaptationMethod as AdaptationMethod

__all__ = ["METHODS", "AdaptationMethod", "gradual", "methods"]
