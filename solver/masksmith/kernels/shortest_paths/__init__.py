"""Shortest augmenting paths for single tiles: what dual ascent leaves open is solved and polished here."""
