"""Verifies masks against patterns by counting, independently of every solver."""

from .verify import Verdict as Verdict, verify as verify
