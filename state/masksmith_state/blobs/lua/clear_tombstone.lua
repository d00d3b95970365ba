-- Clear the tombstone of a blob, unless it was set with another token meanwhile.
--
-- ARGV: blob (`KIND:NAME`), token.

if redis.call('HGET', 'masksmith:tombstones', ARGV[1]) == ARGV[2] then
  redis.call('HDEL', 'masksmith:tombstones', ARGV[1])
end
