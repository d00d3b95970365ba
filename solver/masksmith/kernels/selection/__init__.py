"""Selections without flows: the n largest of a group, V:N:M panels, thresholds from histograms."""
