"""Readers-writer locks on devices: masks jobs share a device, a benchmark uses it exclusively."""
