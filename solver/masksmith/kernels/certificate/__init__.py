"""The checkers: objective and bound of masks from duals alone; they share no code with any solver."""
