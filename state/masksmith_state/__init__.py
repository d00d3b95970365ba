"""State shared by service and workers: job records, blobs, queues, the worker registry, device locks and telemetry."""

DATA_FORMAT = 4
"""Version of data directories and of records in Redis; increased whenever those of older versions cannot be read."""
