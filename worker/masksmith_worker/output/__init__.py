"""Writes the output of a job: files of weights with zeros, then masks, copies of other files, and the record."""
