"""Checkpoints as directories: read one with its config, choose what is masked in it, write it pruned."""
