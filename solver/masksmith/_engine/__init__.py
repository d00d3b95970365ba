"""Solves the panels of problems on threads or processes."""

from .panel_store import PanelStore as PanelStore, Span as Span
from .streaming import run as run, windowed as windowed
