-- Count the queued shards of a queue.
--
-- ARGV: queue.
-- Returns their number.

return queue_depth(ARGV[1], -1)
