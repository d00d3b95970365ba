"""Layers of a job as pictures: windows of mask and weight, read a few rows at a time."""
