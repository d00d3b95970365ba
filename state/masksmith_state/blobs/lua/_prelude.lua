-- Functions shared by the scripts of blob references; `blobs/references.py` describes the keys.

local function timestamp() local t = redis.call('TIME'); return string.format('%d.%06d', t[1], t[2]) end

local record_bytes = 1024  -- Bytes of the broker's memory that are counted for an owner's reference to an upload.

-- Returns whether a backup is running. If so, the blob is added to the set of blobs that are deleted after the backup.
local function defer_deletion(blob)
  if redis.call('EXISTS', 'masksmith:backup') == 0 then return false end
  redis.call('SADD', 'masksmith:deferred', blob)
  return true
end

-- Set the tombstone of a blob, unless another process that set it is still deleting the blob.
--
-- A token is TIME:RANDOM. Of a token whose time is before `stopped_before`, the process is taken to have stopped.
local function set_tombstone(blob, token, stopped_before)
  local present = redis.call('HGET', 'masksmith:tombstones', blob)
  if present and (tonumber(string.match(present, '^[^:]*')) or 0) >= tonumber(stopped_before) then return 0 end
  redis.call('HSET', 'masksmith:tombstones', blob, token)
  return 1
end

-- Remove an owner's reference to an upload, and subtract its bytes from what is counted for the owner.
local function unlink(owner, digest)
  local upload = 'masksmith:upload:' .. digest
  if redis.call('SREM', upload .. ':owners', owner) == 1 then
    redis.call('DECRBY', 'masksmith:owner:' .. owner .. ':bytes', redis.call('HGET', upload, 'size') or 0)
    redis.call('DECRBY', 'masksmith:owner:' .. owner .. ':record_bytes', record_bytes)
  end
  redis.call('ZREM', 'masksmith:uploads', owner .. ':' .. digest)
end
