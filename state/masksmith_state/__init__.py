"""What service and workers share behind the wire: records of jobs, blobs, queues, who is alive, and telemetry."""

DATA_FORMAT = 2
"""Format of a data directory and of the records in Redis; raised whenever older ones cannot be read."""
