"""Runs panels through solvers, on threads or on processes."""

from .panel_store import PanelStore as PanelStore, Span as Span
from .streaming import available_cores as available_cores, run as run, windowed as windowed
