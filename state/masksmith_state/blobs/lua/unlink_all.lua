-- Remove the references of all owners to an upload, and clear its tombstone, unless another process has set it again.
--
-- ARGV: digest, token of the tombstone.

local blob = 'upload:' .. ARGV[1]
if redis.call('HGET', 'masksmith:tombstones', blob) == ARGV[2] then
  local owners = redis.call('SMEMBERS', 'masksmith:upload:' .. ARGV[1] .. ':owners')
  for _, owner in ipairs(owners) do unlink(owner, ARGV[1]) end
  redis.call('HDEL', 'masksmith:tombstones', blob)
end
