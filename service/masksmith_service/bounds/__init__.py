"""Bounds: one table of what clients may take of this service, and the capacities that enforce a part of it."""
