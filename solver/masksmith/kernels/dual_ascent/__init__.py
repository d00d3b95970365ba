"""Dual coordinate ascent on many tiles at once, in integers first and in doubles where ranges demand it."""
