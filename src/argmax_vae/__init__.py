"""Gradient estimators for discrete variational auto-encoders, compared on one objective."""

__version__ = "0.1.0"
