"""Solves the panels of problems on threads or processes."""

from .panel_store import PanelStore as PanelStore, Span as Span
from .streaming import map_windowed as map_windowed, run as run
