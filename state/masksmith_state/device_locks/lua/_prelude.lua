-- Variables shared by the scripts of a device lock. Members of `shared` whose lease has expired are removed first.
--
-- KEYS: `exclusive` (token of the benchmark that holds the device, or waits until no masks job holds it), `shared`
-- (tokens of masks jobs that hold the device, `ID:LEASE_MS`, scored by the end of their lease), `waiting` (exists for a
-- short time after a masks job has tried to acquire the device and must wait).

local at = redis.call('TIME')
local ms = tonumber(at[1]) * 1000 + math.floor(tonumber(at[2]) / 1000)
local exclusive, shared, waiting = KEYS[1], KEYS[2], KEYS[3]
redis.call('ZREMRANGEBYSCORE', shared, '-inf', ms)
