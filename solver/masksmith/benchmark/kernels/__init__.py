"""masksmith's own kernels; they import torch only in `obstacle` and `pack`."""
