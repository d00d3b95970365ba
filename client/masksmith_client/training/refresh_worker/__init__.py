"""Solve masks in a worker process or thread while a training loop runs. No module here imports torch."""
