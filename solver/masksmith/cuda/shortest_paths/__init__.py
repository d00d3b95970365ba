"""Shortest paths on the device, from the source that the CPU uses."""
