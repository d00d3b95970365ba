-- Begin a browser session of a key; beyond the limit, its oldest sessions end.
--
-- ARGV: Redis key of the session, Redis key of all sessions of the key, the session's value, seconds, limit.

local session, sessions, value, seconds, limit = unpack(ARGV)
local time = redis.call('TIME')
-- In microseconds: of two sessions that begin in one second, the first is the older one.
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
redis.call('SET', session, value, 'EX', seconds)
redis.call('ZREMRANGEBYSCORE', sessions, '-inf', string.format('%.6f', now))
redis.call('ZADD', sessions, string.format('%.6f', now + seconds), session)
redis.call('EXPIRE', sessions, seconds)
local excess = redis.call('ZCARD', sessions) - limit
if excess > 0 then
  for _, oldest in ipairs(redis.call('ZRANGE', sessions, 0, excess - 1)) do redis.call('DEL', oldest) end
  redis.call('ZREMRANGEBYRANK', sessions, 0, excess - 1)
end
return 0
