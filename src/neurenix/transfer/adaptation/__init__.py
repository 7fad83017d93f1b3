"""Adapt a model to a domain without labels."""

from . import methods as methods
from .adapter import DomainAdapter as DomainAdapter
from .method import METHODS as METHODS
from .method import AdaptationMethod as AdaptationMethod

__all__ = ["METHODS", "AdaptationMethod", "DomainAdapter", "methods"]
