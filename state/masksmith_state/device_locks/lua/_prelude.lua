-- Names that the scripts of a device's lock share. Members of `beside` whose lease has lapsed are removed first.
--
-- KEYS: `alone` (token of the benchmark that has the device), `beside` (tokens of searches by the end of their lease),
-- `waiting` (set for a moment by each search that waits).

local at = redis.call('TIME')
local ms = tonumber(at[1]) * 1000 + math.floor(tonumber(at[2]) / 1000)
local alone, beside, waiting = KEYS[1], KEYS[2], KEYS[3]
redis.call('ZREMRANGEBYSCORE', beside, '-inf', ms)
