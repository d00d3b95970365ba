"""Telemetry: logs, traces, and counters in Redis."""
