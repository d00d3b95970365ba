"""Shortest augmenting paths for single tiles; solves and polishes the tiles that dual ascent left unsolved."""
