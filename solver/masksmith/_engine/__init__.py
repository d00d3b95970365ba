"""Runs panels through solvers, on threads or on processes."""

from .streaming import available_cores as available_cores, run as run, windowed as windowed
