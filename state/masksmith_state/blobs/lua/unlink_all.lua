-- Remove the references of all owners to an upload.
--
-- ARGV: digest.

local owners = redis.call('SMEMBERS', 'masksmith:upload:' .. ARGV[1] .. ':owners')
for _, owner in ipairs(owners) do unlink(owner, ARGV[1]) end
