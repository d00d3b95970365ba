"""Benchmarks: planning of requests, and reports of results."""
