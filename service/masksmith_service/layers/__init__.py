"""Layers: windows of a job's masks and weights for display, read in bounded memory."""
