-- Begin a browser session of a key; beyond the limit, its oldest sessions end.
--
-- ARGV: Redis key of the session, Redis key of all sessions of the key, the session's value, seconds, limit.

local session, sessions, value, seconds, limit = unpack(ARGV)
local now = tonumber(redis.call('TIME')[1])
redis.call('SET', session, value, 'EX', seconds)
redis.call('ZREMRANGEBYSCORE', sessions, '-inf', now)
redis.call('ZADD', sessions, now + seconds, session)
redis.call('EXPIRE', sessions, seconds)
local excess = redis.call('ZCARD', sessions) - limit
if excess > 0 then
  for _, oldest in ipairs(redis.call('ZRANGE', sessions, 0, excess - 1)) do redis.call('DEL', oldest) end
  redis.call('ZREMRANGEBYRANK', sessions, 0, excess - 1)
end
return 0
