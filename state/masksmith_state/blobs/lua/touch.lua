-- Record that an owner uses an upload now. The owner's reference expires some time after the last use.
--
-- ARGV: owner, digest, 1 to accept an upload that only other owners have sent; nothing is recorded for it.
-- Returns the size in bytes, or -1 if there is no such upload.

local upload = 'masksmith:upload:' .. ARGV[2]
local is_own = redis.call('SISMEMBER', upload .. ':owners', ARGV[1]) == 1
if not is_own and ARGV[3] ~= '1' then return -1 end
if is_own then redis.call('ZADD', 'masksmith:uploads', timestamp(), ARGV[1] .. ':' .. ARGV[2]) end
return tonumber(redis.call('HGET', upload, 'size') or -1)
