"""Duals of masks: cheap ones by sweeps, exact ones from a residual graph, and their centring."""
