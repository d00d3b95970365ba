-- Take one request out of a key's token bucket.
--
-- ARGV: key, requests a second, size of the bucket.
-- Returns the seconds to wait, '0' if none.

local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
local name, rate, size = 'masksmith:rate:' .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local last = redis.call('HMGET', name, 'left', 'at')
local left = math.min(size, tonumber(last[1] or size) + math.max(0, now - tonumber(last[2] or now)) * rate)
if left < 1 then return tostring((1 - left) / rate) end
redis.call('HSET', name, 'left', left - 1, 'at', string.format('%.6f', now))
redis.call('EXPIRE', name, math.ceil(size / rate) + 1)
redis.call('HSET', 'masksmith:key:' .. ARGV[1], 'last_used_at', string.format('%.6f', now))
return '0'
