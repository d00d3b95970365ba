"""SIMD code generators for LLVM; vectors have 16 lanes, one tile per lane."""
