-- Acquire the device in exclusive mode, for a benchmark. While masks jobs hold the device, the benchmark waits, and no
-- further masks job can acquire it.
--
-- ARGV: token, lease in ms.
-- Returns 2 if the benchmark now holds the device, 1 if masks jobs still hold it, 0 if another benchmark holds it or
-- waits for it.

local holder = redis.call('GET', exclusive)
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', exclusive, ARGV[1], 'PX', ARGV[2])
-- A lease that ends later than if it were given now was given before the clock was set back: it is given again, once.
local leases = redis.call('ZRANGE', shared, 0, -1, 'WITHSCORES')
for at = 1, #leases, 2 do
  local latest_end = ms + (tonumber(string.match(leases[at], ':(%d+)$')) or tonumber(ARGV[2]))
  if tonumber(leases[at + 1]) > latest_end then redis.call('ZADD', shared, 'XX', latest_end, leases[at]) end
end
return redis.call('ZCARD', shared) == 0 and 2 or 1
