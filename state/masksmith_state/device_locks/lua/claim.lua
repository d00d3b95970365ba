-- Claim the device for a benchmark.
--
-- ARGV: token, lease in ms.
-- Returns 2 if the benchmark has it alone, 1 if searches must still end, 0 if another benchmark has it.

local holder = redis.call('GET', alone)
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', alone, ARGV[1], 'PX', ARGV[2])
return redis.call('ZCARD', beside) == 0 and 2 or 1
