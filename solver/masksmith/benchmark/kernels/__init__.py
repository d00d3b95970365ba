"""masksmith's own kernels; none imports torch before it packs."""
