-- Add an event to a live job, if the token holds the shard's lease.
--
-- ARGV: id, shard, token, kind, data as JSON.
-- Returns 1 if the event was added, else 0.

local id, shard, token, kind, data = unpack(ARGV)
local job = 'masksmith:job:' .. id
if redis.call('GET', job .. ':lease:' .. shard) ~= token or not is_live(job) then return 0 end
add_event(job, kind, data)
return 1
