-- Take one request out of a key's token bucket.
--
-- ARGV: key, requests a second, size of the bucket.
-- Returns the seconds to wait, '0' if none.

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local bucket, rate, size = 'masksmith:rate:' .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local before = redis.pcall('HMGET', bucket, 'left', 'at')
-- A bucket that cannot be read is full again.
if before.err or (before[1] and not tonumber(before[1])) or (before[2] and not tonumber(before[2])) then
  redis.call('DEL', bucket)
  before = {false, false}
end
local tokens_before, time_before = unpack(before)
local elapsed = math.max(0, now - tonumber(time_before or now))
local tokens = math.min(size, tonumber(tokens_before or size) + elapsed * rate)
if tokens < 1 then
  -- A time in the future is from before the clock was set back; the bucket would not be filled until then.
  if time_before and tonumber(time_before) > now then
    redis.call('HSET', bucket, 'at', string.format('%.6f', now))
    redis.call('EXPIRE', bucket, math.ceil(size / rate) + 1)
  end
  return tostring((1 - tokens) / rate)
end
redis.call('HSET', bucket, 'left', tokens - 1, 'at', string.format('%.6f', now))
redis.call('EXPIRE', bucket, math.ceil(size / rate) + 1)
-- A user of an issuer has no record; writing a field would create one that never expires.
local record = 'masksmith:key:' .. ARGV[1]
if redis.call('EXISTS', record) == 1 then
  redis.call('HSET', record, 'last_used_at', string.format('%.6f', now))
end
return '0'
