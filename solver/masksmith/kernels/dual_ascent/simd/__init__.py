"""SIMD vectors in LLVM: 16 tiles side by side, one a lane."""
