"""HTTP: requests as values, connections that send and try again, events."""
