"""Checkpoints: model directories as Hugging Face writes them."""
