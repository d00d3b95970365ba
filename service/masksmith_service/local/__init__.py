"""The commands that run and manage an installation on this machine: `up`, `service`, `worker` and so on.

They start service and workers as processes, and never import the application.
"""
