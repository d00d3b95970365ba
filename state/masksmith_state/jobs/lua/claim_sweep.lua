-- Claim a sweep, which succeeds for one caller per period. An earlier claim that expires later than one period from now
-- was made before the clock was set back; it is deleted.
--
-- ARGV: period in ms, `:NAME` of the sweep or '' for the sweep of shards.
-- Returns 1 for the first caller in a period, else 0.

local key, period = 'masksmith:sweeper' .. ARGV[2], tonumber(ARGV[1])
if redis.call('PTTL', key) > period then redis.call('DEL', key) end
return redis.call('SET', key, '1', 'NX', 'PX', period) and 1 or 0
