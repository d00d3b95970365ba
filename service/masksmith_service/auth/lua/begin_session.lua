-- Begin a browser session of a key; beyond the limit of sessions, the oldest ones end.
--
-- ARGV: Redis key of the session, Redis key of all sessions of the key, the session's value, seconds, limit.

local session, sessions, value, seconds, limit = unpack(ARGV)
local time = redis.call('TIME')
-- With microseconds, so that sessions that begin in the same second are ordered, too.
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
redis.call('SET', session, value, 'EX', seconds)
redis.call('ZREMRANGEBYSCORE', sessions, '-inf', string.format('%.6f', now))
-- Later than the end of all others, also if they were begun before the clock was set back: else it would be the oldest.
local latest = redis.call('ZRANGE', sessions, -1, -1, 'WITHSCORES')[2]
local ends_at = math.max(now + seconds, (tonumber(latest) or 0) + 1e-6)
redis.call('ZADD', sessions, string.format('%.6f', ends_at), session)
redis.call('EXPIRE', sessions, seconds)
local excess = redis.call('ZCARD', sessions) - limit
if excess > 0 then
  for _, oldest in ipairs(redis.call('ZRANGE', sessions, 0, excess - 1)) do redis.call('DEL', oldest) end
  redis.call('ZREMRANGEBYRANK', sessions, 0, excess - 1)
end
return 0
