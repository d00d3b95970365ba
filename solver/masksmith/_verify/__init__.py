"""The verifier: checks masks against patterns by counting, independent of every solver."""

from .verify import Verdict as Verdict, verify as verify
