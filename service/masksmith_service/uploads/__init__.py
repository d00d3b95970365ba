"""Uploads: safetensors bodies, inspected, hashed and stored while they arrive."""
