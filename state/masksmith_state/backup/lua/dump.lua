-- Serialize all keys of the installation at one moment.
--
-- ARGV: none.
-- Returns key, time to live in ms (negative: none) and serialized value of each.

local reply = {}
for _, key in ipairs(redis.call('KEYS', 'masksmith:*')) do
  reply[#reply + 1] = key
  reply[#reply + 1] = redis.call('PTTL', key)
  reply[#reply + 1] = redis.call('DUMP', key)
end
return reply
