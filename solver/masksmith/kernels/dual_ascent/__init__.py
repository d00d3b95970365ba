"""Dual coordinate ascent on 16 tiles at once: in 32-bit integers, and in float64 where scores range too widely."""
