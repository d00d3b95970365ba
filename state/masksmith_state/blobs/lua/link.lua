-- Add an owner's reference to an upload that it has sent.
--
-- ARGV: owner, digest, size in bytes, limit of the bytes of the owner's uploads and results, limit of the bytes of the
-- owner's records in the broker (each -1 for no limit). `record_bytes` is defined in `_prelude.lua`.
-- Returns `new`, `known` if the reference existed, `full` or `records_full` if the first or the second limit would be
-- exceeded, or `tombstone` if the upload is being deleted.

local owner, digest, upload = ARGV[1], ARGV[2], 'masksmith:upload:' .. ARGV[2]
if redis.call('HEXISTS', 'masksmith:tombstones', 'upload:' .. digest) == 1 then return 'tombstone' end
local function exceeds(key, bytes, limit)
  return limit >= 0 and tonumber(redis.call('GET', key) or 0) + bytes > limit
end

local stored_key = 'masksmith:owner:' .. owner .. ':bytes'
local records_key = 'masksmith:owner:' .. owner .. ':record_bytes'
local is_known = redis.call('SISMEMBER', upload .. ':owners', owner) == 1
if not is_known then
  if exceeds(stored_key, tonumber(ARGV[3]), tonumber(ARGV[4])) then return 'full' end
  if exceeds(records_key, record_bytes, tonumber(ARGV[5])) then return 'records_full' end
  redis.call('HSET', upload, 'size', ARGV[3])
  redis.call('SADD', upload .. ':owners', owner)
  redis.call('INCRBY', stored_key, ARGV[3])
  redis.call('INCRBY', records_key, record_bytes)
end
redis.call('ZADD', 'masksmith:uploads', timestamp(), owner .. ':' .. digest)
return is_known and 'known' or 'new'
