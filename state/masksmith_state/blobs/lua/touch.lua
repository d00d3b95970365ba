-- Note that an upload is used, so that it expires later.
--
-- ARGV: owner, digest, 1 if an upload of another owner is accepted too.
-- Returns the size, or -1 if there is no such upload.

local upload = 'masksmith:upload:' .. ARGV[2]
local mine = redis.call('SISMEMBER', upload .. ':owners', ARGV[1]) == 1
if not mine and ARGV[3] ~= '1' then return -1 end
if mine then redis.call('ZADD', 'masksmith:uploads', timestamp(), ARGV[1] .. ':' .. ARGV[2]) end
return tonumber(redis.call('HGET', upload, 'size') or -1)
