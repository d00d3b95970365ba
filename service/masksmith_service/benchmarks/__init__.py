"""Benchmarks: planned from requests, reported from results."""
