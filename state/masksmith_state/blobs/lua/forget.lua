-- Remove an owner's reference to an upload at the owner's request, unless one of the owner's live jobs reads it.
--
-- ARGV: owner, digest.
-- Returns 1 if the reference was removed, 0 if a live job of the owner reads the upload, -1 if there is no reference.

local owner, digest = ARGV[1], ARGV[2]
local upload = 'masksmith:upload:' .. digest
if redis.call('SISMEMBER', upload .. ':owners', owner) == 0 then return -1 end
for _, job in ipairs(redis.call('SMEMBERS', upload .. ':jobs')) do
  if redis.call('HGET', 'masksmith:job:' .. job, 'owner') == owner then return 0 end
end
unlink(owner, digest)
return 1
