"""Duals of masks: approximate ones by dual coordinate ascent, exact ones from residual graphs, and centring."""
