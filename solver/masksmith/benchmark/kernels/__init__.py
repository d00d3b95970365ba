"""masksmith's own kernels, one a file; none imports torch before it packs."""
