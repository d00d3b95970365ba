"""The stages of a shard: allocate (under a budget), load, score, solve, update, measure, store."""
