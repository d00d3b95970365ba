"""Other methods, implemented here from their papers, for benchmarks that time them in the same run."""
