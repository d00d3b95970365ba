-- Move a live job to another queue.
--
-- ARGV: id, its queue, the other queue.
-- Returns 1 if the job was in that queue, else 0.

local id, queue, other = unpack(ARGV)
local job = 'masksmith:job:' .. id
if not is_live(job) or (redis.call('HGET', job, 'queue') or 'masksmith.cpu') ~= queue then return 0 end
local fair, owner, priority = scheduling_of(job)
unlist_job(fair, owner, priority, id, true)
redis.call('HSET', job, 'queue', other)
list_job(job, id)
return 1
