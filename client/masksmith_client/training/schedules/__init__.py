"""Schedules: which pattern counts at which step."""
