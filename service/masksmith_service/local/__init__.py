"""Installations on this machine: the commands `up`, `service`, `worker` and `keys`.

Service and workers are started as processes, and never imported.
"""
