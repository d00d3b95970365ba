-- Claim a sweep: one caller per period gets it. A claim that would end later than a period from now began before the
-- clock was set back, and is dropped.
--
-- ARGV: period in ms, what is swept as `:NAME`, or '' for shards.
-- Returns 1 for the first caller in a period, else 0.

local key, period = 'masksmith:sweeper' .. ARGV[2], tonumber(ARGV[1])
if redis.call('PTTL', key) > period then redis.call('DEL', key) end
return redis.call('SET', key, '1', 'NX', 'PX', period) and 1 or 0
