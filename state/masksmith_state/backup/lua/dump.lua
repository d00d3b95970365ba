-- Serialize all keys of the installation; as one script, so that they are consistent.
--
-- ARGV: none.
-- Returns for each key: the key, its time to live in ms (negative: none), its serialized value.

local reply = {}
for _, key in ipairs(redis.call('KEYS', 'masksmith:*')) do
  reply[#reply + 1] = key
  reply[#reply + 1] = redis.call('PTTL', key)
  reply[#reply + 1] = redis.call('DUMP', key)
end
return reply
