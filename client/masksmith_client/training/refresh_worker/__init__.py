"""Getting masks while a training loop runs. Nothing here imports torch, so the refresh process starts quickly."""
