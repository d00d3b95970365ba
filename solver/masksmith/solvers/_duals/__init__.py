"""Duals of masks: approximate duals by dual coordinate ascent, exact duals from residual graphs, and centring."""
