-- Add a live job's reference to a result, which need not exist yet.
--
-- ARGV: job, key of the result.
-- Returns 1 if the reference exists now, 0 if the result is being deleted, -1 if the job is not live.

local state = redis.call('HGET', 'masksmith:job:' .. ARGV[1], 'state')
if state ~= 'queued' and state ~= 'running' then return -1 end
if redis.call('HEXISTS', 'masksmith:tombstones', 'result:' .. ARGV[2]) == 1 then return 0 end
redis.call('SADD', 'masksmith:result:' .. ARGV[2], ARGV[1])
redis.call('SADD', 'masksmith:job:' .. ARGV[1] .. ':results', ARGV[2])
redis.call('ZREM', 'masksmith:unreferenced_results', ARGV[2])
return 1
