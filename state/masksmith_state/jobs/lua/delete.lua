-- Delete a job's record. Results to which no other job refers are added to `masksmith:unreferenced_results`, so that
-- retention deletes them.
--
-- ARGV: id.
-- Returns 1, or 0 for an unknown job. An error if the record of a known job is lost.

local id, job = ARGV[1], 'masksmith:job:' .. ARGV[1]
check_record(job, id)
if redis.call('EXISTS', job) == 0 then return 0 end
count_job(job, -1)
redis.call('SREM', 'masksmith:live', id)
redis.call('SREM', owner_key(job, 'live'), id)
redis.call('ZREM', 'masksmith:jobs', id)
redis.call('ZREM', owner_key(job, 'jobs'), id)
redis.call('ZREM', 'masksmith:ids', id)
redis.call('ZREM', owner_key(job, 'ids'), id)
redis.call('ZREM', 'masksmith:finished', id)
release_inputs(job, id)
for _, key in ipairs(redis.call('SMEMBERS', job .. ':results')) do
  redis.call('SREM', 'masksmith:result:' .. key, id)
  note_released_result(key)
end
redis.call('DECRBY', owner_key(job, 'bytes'), redis.call('HGET', job, 'result_bytes') or 0)
redis.call('DECRBY', owner_key(job, 'record_bytes'), redis.call('HGET', job, 'record_bytes') or 0)
local idempotent = redis.call('HGET', job, 'idempotent')
if idempotent and idempotent ~= '' and redis.call('HGET', idempotent, 'id') == id then redis.call('DEL', idempotent) end
for _, part in ipairs({':results', ':shards', ':pending', ':queued', ':queued:long', ':taken', ':attempts', ':reports',
  ':events'}) do
  redis.call('DEL', job .. part)
end
redis.call('DEL', job)
return 1
