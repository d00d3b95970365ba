"""Writes the output of a job: files of weights with zeros; then masks, record and what is beside."""
