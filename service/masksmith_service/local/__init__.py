"""The commands that run an installation on this machine: `up`, `service`, `worker` and `keys`.

They start service and workers as processes, and do not import them.
"""
