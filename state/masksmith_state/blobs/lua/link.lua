-- Add an owner's reference to an upload that it has sent.
--
-- ARGV: owner, digest, size, limit of the owner's bytes or -1.
-- Returns `new`, `known` if the reference existed, `full` if the limit would be exceeded, or `tombstone` if the upload
-- is being deleted.

local owner, digest, upload = ARGV[1], ARGV[2], 'masksmith:upload:' .. ARGV[2]
if redis.call('HEXISTS', 'masksmith:tombstones', 'upload:' .. digest) == 1 then return 'tombstone' end
local bytes, limit = 'masksmith:owner:' .. owner .. ':bytes', tonumber(ARGV[4])
local known = redis.call('SISMEMBER', upload .. ':owners', owner) == 1
if not known and limit >= 0 and tonumber(redis.call('GET', bytes) or 0) + tonumber(ARGV[3]) > limit then return 'full' end
if not known then
  redis.call('HSET', upload, 'size', ARGV[3])
  redis.call('SADD', upload .. ':owners', owner)
  redis.call('INCRBY', bytes, ARGV[3])
end
redis.call('ZADD', 'masksmith:uploads', timestamp(), owner .. ':' .. digest)
return known and 'known' or 'new'
