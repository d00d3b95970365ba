"""Uploads of safetensors files: inspected, hashed and stored while they are received."""
