"""Pages for people: rendered here, kept alive by a little script, nothing from anywhere else."""
