-- Add an owner's reference to an upload that it has sent.
--
-- ARGV: owner, digest, size, limits of the owner's bytes and of its records' bytes, each -1 for none.
-- Returns `new`, `known` if the reference existed, `full` if a limit would be exceeded, or `tombstone` if the upload
-- is being deleted.

local owner, digest, upload = ARGV[1], ARGV[2], 'masksmith:upload:' .. ARGV[2]
if redis.call('HEXISTS', 'masksmith:tombstones', 'upload:' .. digest) == 1 then return 'tombstone' end
local bytes, limit = 'masksmith:owner:' .. owner .. ':bytes', tonumber(ARGV[4])
local known = redis.call('SISMEMBER', upload .. ':owners', owner) == 1
if not known and limit >= 0 and tonumber(redis.call('GET', bytes) or 0) + tonumber(ARGV[3]) > limit then return 'full' end
local records, records_limit = 'masksmith:owner:' .. owner .. ':record_bytes', tonumber(ARGV[5])
if not known and records_limit >= 0 and tonumber(redis.call('GET', records) or 0) + record_bytes > records_limit then
  return 'full'
end
if not known then
  redis.call('HSET', upload, 'size', ARGV[3])
  redis.call('SADD', upload .. ':owners', owner)
  redis.call('INCRBY', bytes, ARGV[3])
  redis.call('INCRBY', records, record_bytes)
end
redis.call('ZADD', 'masksmith:uploads', timestamp(), owner .. ':' .. digest)
return known and 'known' or 'new'
