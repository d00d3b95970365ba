-- Move a live job to another queue.
--
-- ARGV: id, present queue, new queue.
-- Returns 1 if the job was moved, 0 if it is not live or not in `present queue`.

local id, present_queue, new_queue = unpack(ARGV)
local job = 'masksmith:job:' .. id
if not is_live(job) or (redis.call('HGET', job, 'queue') or 'masksmith.cpu') ~= present_queue then return 0 end
local fair, owner, priority = scheduling_of(job)
unlist_job(fair, owner, priority, id, true)
redis.call('HSET', job, 'queue', new_queue)
list_job(job, id)
return 1
