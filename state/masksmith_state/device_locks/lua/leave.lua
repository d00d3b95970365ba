-- Give the device back, from a hold of either kind.
--
-- ARGV: token.
-- Returns 1.

if redis.call('GET', alone) == ARGV[1] then redis.call('DEL', alone) end
redis.call('ZREM', beside, ARGV[1])
return 1
