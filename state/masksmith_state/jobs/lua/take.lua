-- Take the lease of a shard, and count an attempt.
--
-- ARGV: id, shard, lease in ms, attempts allowed, report for a shard with no attempt left.
-- Returns {token, attempt, seconds since the job started}, or {'', reason}.

local id, shard, lease_ms, attempts, report = unpack(ARGV)
local job = 'masksmith:job:' .. id
if not is_live(job) then return {'', 'closed'} end
if redis.call('SISMEMBER', job .. ':pending', shard) == 0 then return {'', 'done'} end
local lease = job .. ':lease:' .. shard
if redis.call('EXISTS', lease) == 1 then return {'', 'held'} end
local attempt = redis.call('HINCRBY', job .. ':attempts', shard, 1)
local queued = redis.call('HGET', job .. ':queued', shard)
if queued and tonumber(queued) > tonumber(redis.call('GET', horizon_key(job)) or 0) then
  redis.call('SET', horizon_key(job), queued)
end
redis.call('HDEL', job .. ':queued', shard)
if attempt > tonumber(attempts) then
  redis.call('HSET', job .. ':reports', shard, report)
  redis.call('HINCRBY', job, 'failures', 1)
  redis.call('SREM', job .. ':pending', shard)
  add_count('shards||failed', 1)
  finish_shard(job, id)
  return {'', 'exhausted'}
end
local token = tostring(redis.call('INCR', 'masksmith:fence'))
redis.call('SET', lease, token, 'PX', lease_ms)
if tonumber(lease_ms) > tonumber(redis.call('GET', 'masksmith:lease-ms') or 0) then
  redis.call('SET', 'masksmith:lease-ms', lease_ms)
end
if redis.call('HGET', job, 'state') == 'queued' then
  set_state(job, 'running')
  redis.call('HSET', job, 'started_at', timestamp())
  add_event(job, 'state', '{"state":"running"}')
end
local elapsed = now() - tonumber(redis.call('HGET', job, 'started_at'))
return {token, tostring(attempt), string.format('%.6f', math.max(0, elapsed))}
