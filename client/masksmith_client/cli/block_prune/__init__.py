"""`masksmith prune --calibration-text`: prune a language model block by block, each on the pruned ones before it.

One block at a time is loaded from the checkpoint's files, in float32, and pruned by `masksmith.model_pruning`. Its
weights, in the dtypes of the checkpoint, and its masks are kept in a folder of the output until all blocks are done;
then the output's files are written. A run that was killed goes on after the last block that it finished.
"""

from .solver import block_solver as block_solver
