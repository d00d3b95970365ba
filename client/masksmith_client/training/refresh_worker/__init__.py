"""Asking for masks beside a training loop. Nothing here needs torch, so the asking process starts quickly."""
