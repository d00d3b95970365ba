-- Serialize all Redis keys of the installation. One script does it, so that the values are of the same moment.
--
-- ARGV: none.
-- Returns a list with three members for each key: the key, its time to live in ms (negative: it does not expire), and
-- its serialized value.

local reply = {}
for _, key in ipairs(redis.call('KEYS', 'masksmith:*')) do
  reply[#reply + 1] = key
  reply[#reply + 1] = redis.call('PTTL', key)
  reply[#reply + 1] = redis.call('DUMP', key)
end
return reply
