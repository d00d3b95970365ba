-- Acquire the device exclusively, for a benchmark.
--
-- ARGV: token, lease in ms.
-- Returns 2 if the device is held, 1 if masks jobs still hold it, 0 if another benchmark holds it.

local holder = redis.call('GET', exclusive)
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', exclusive, ARGV[1], 'PX', ARGV[2])
return redis.call('ZCARD', shared) == 0 and 2 or 1
