"""Training methods: how pruned weights are trained and how entries are scored."""
