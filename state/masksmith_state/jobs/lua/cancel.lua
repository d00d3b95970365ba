-- Cancel a job.
--
-- ARGV: id.
-- Returns -1 for an unknown job, 1 if this call canceled it, 0 if it was terminal already.

local id, job = ARGV[1], 'masksmith:job:' .. ARGV[1]
if redis.call('EXISTS', job) == 0 then return -1 end
if not is_live(job) then return 0 end
redis.call('DEL', job .. ':pending')
end_job(job, id, 'canceled')
return 1
