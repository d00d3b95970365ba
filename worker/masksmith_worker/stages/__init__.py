"""The stages of a shard: allocate (if there is a budget), load, score, solve, update, measure, store."""
