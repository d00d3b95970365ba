-- Renew a lease.
--
-- ARGV: id, shard, token, lease in ms.
-- Returns 1 while the job is live and the token still holds the lease, else 0.

local id, shard, token, lease_ms = unpack(ARGV)
local job = 'masksmith:job:' .. id
local lease = job .. ':lease:' .. shard
if redis.call('GET', lease) ~= token then return 0 end
redis.call('PEXPIRE', lease, lease_ms)
return is_live(job) and 1 or 0
