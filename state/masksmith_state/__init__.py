"""State shared by service and workers: job records, blobs, queues, the worker registry, device locks and telemetry."""

DATA_FORMAT = 4
"""Version of the data directory and of the records in Redis; increased whenever older ones cannot be read."""
