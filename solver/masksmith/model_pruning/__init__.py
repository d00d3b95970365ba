"""Pruning of a whole model, block by block: each block is calibrated on the outputs of the pruned blocks before it."""
