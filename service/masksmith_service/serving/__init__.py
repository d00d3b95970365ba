"""Two processes behind one port: one answers questions, the other carries large bodies."""
