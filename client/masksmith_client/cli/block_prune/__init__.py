"""`masksmith prune --calibration-text`: prune a language model block by block.

One block at a time is loaded from the checkpoint's files, in float32, and pruned by `masksmith.model_pruning`. The
inputs of a block are the outputs of the pruned block before it. The weights of a finished block, in the dtypes of the
checkpoint, and its masks are kept in a folder of the output until all blocks are finished; then the output's files are
written. An interrupted run continues after the last finished block.
"""

from .solver import block_solver as block_solver
