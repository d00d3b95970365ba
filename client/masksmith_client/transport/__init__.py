"""HTTP: requests as values, sessions that send and try again, drivers that do the I/O, events."""
