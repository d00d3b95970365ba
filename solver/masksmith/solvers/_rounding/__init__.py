"""Rounding of relaxed or partial masks: entropic transport plans, repair, exchanges, and chunked solving in torch."""
