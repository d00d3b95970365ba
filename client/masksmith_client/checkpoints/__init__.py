"""Checkpoints: model directories as Hugging Face writes them, read with their layouts and written pruned."""
