-- Remove an owner's reference to an upload that was not used since a given time, unless a live job reads the upload.
-- If a live job reads it, the upload counts as used now.
--
-- ARGV: owner, digest, time.
-- Returns 1 if the reference was removed, else 0.

local member = ARGV[1] .. ':' .. ARGV[2]
local used = redis.call('ZSCORE', 'masksmith:uploads', member)
if not used or tonumber(used) >= tonumber(ARGV[3]) then return 0 end
if redis.call('EXISTS', 'masksmith:upload:' .. ARGV[2] .. ':jobs') == 1 then
  redis.call('ZADD', 'masksmith:uploads', timestamp(), member)
  return 0
end
unlink(ARGV[1], ARGV[2])
return 1
