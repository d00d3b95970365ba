"""Writes the output of a job: files of weights with zeros, then masks, record and copies of other files."""
