"""The stages of a shard: score, solve, update, measure."""
