-- Functions shared by the scripts of blob references; `blobs/references.py` describes the keys.

local function timestamp() local t = redis.call('TIME'); return string.format('%d.%06d', t[1], t[2]) end

local record_bytes = 1024  -- Bytes of the broker's memory that are counted for an owner's reference to an upload.

-- Returns whether a backup is running. If so, the blob is added to the set of blobs that are deleted after the backup.
local function defer_deletion(blob)
  if redis.call('EXISTS', 'masksmith:backup') == 0 then return false end
  redis.call('SADD', 'masksmith:deferred', blob)
  return true
end

-- Whether the process that set a tombstone with this token, TIME:RANDOM, is taken to have stopped. The time may also
-- be in the future, if the broker's clock was set back.
local function has_stopped(token, timeout_s)
  local time = tonumber(string.match(token, '^[^:]*')) or 0
  return math.abs(tonumber(timestamp()) - time) > tonumber(timeout_s)
end

-- Set the tombstone of a blob, unless another process that set it is still working. Returns the token, or an empty text.
local function set_tombstone(blob, random, timeout_s)
  local present = redis.call('HGET', 'masksmith:tombstones', blob)
  if present and not has_stopped(present, timeout_s) then return '' end
  local token = timestamp() .. ':' .. random
  redis.call('HSET', 'masksmith:tombstones', blob, token)
  return token
end

-- Clear the tombstone of a blob that has a reference, if the process that set it has stopped.
local function clear_stopped_tombstone(blob, timeout_s)
  local present = redis.call('HGET', 'masksmith:tombstones', blob)
  if present and has_stopped(present, timeout_s) then redis.call('HDEL', 'masksmith:tombstones', blob) end
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
