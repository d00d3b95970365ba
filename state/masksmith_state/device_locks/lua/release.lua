-- Release the device, held in shared or in exclusive mode.
--
-- ARGV: token.
-- Returns 1.

if redis.call('GET', exclusive) == ARGV[1] then redis.call('DEL', exclusive) end
redis.call('ZREM', shared, ARGV[1])
return 1
