"""The version, in a module of its own: packaging reads it without importing the rest, and nothing else says it."""

from __future__ import annotations

__version__ = "0.1.0"
