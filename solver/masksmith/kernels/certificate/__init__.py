"""Certificate kernels: objective and upper bound of a mask from its duals; they share no code with any solver."""
