-- Variables shared by the scripts of a device lock. Members of `shared` whose lease has expired are removed first.
--
-- KEYS: `exclusive` (token `ID:LEASE_MS` of the benchmark that holds the device, or waits until no masks job holds it),
-- `shared` (tokens `ID:LEASE_MS` of masks jobs that hold the device, scored by the end of their lease), `waiting` (exists
-- for a short time, `waiting:MS`, after a masks job has tried to acquire the device and must wait).

local at = redis.call('TIME')
local ms = tonumber(at[1]) * 1000 + math.floor(tonumber(at[2]) / 1000)
local exclusive, shared, waiting = KEYS[1], KEYS[2], KEYS[3]
redis.call('ZREMRANGEBYSCORE', shared, '-inf', ms)
-- A key that expires later than if it were set now was set before the clock was set back.
for _, key in ipairs({exclusive, waiting}) do
  local lease = tonumber(string.match(redis.call('GET', key) or '', ':(%d+)$'))
  if lease and redis.call('PTTL', key) > lease then redis.call('PEXPIRE', key, lease) end
end
