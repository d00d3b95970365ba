-- Take a shard: count the attempt, then set its lease, or fail it if no attempt is left.

-- Finish a shard that has no attempt left, with a report of its failure. Shards of tensors are counted under the device
-- in the report; files of an output and cases of a benchmark are not counted, as in `complete`.
local function finish_exhausted(job, id, shard, exhausted_report)
  settle_shard(job, id, shard)
  redis.call('HSET', job .. ':reports', shard, exhausted_report)
  redis.call('HINCRBY', job, 'failures', 1)
  redis.call('SREM', job .. ':pending', shard)
  if redis.call('HGET', job, 'kind') == 'masks' and not writes_file(job, shard) then
    add_count('shards|' .. cjson.decode(exhausted_report).device .. '|failed', 1)
  end
  finish_shard(job, id)
end

local function start_job(job)
  if redis.call('HGET', job, 'state') ~= 'queued' then return end
  set_state(job, 'running')
  redis.call('HSET', job, 'started_at', timestamp())
  add_event(job, 'state', '{"state":"running"}')
end

-- A token that no lease had before. If the counter of tokens cannot be read, it goes on from the time in microseconds,
-- which is more than any count.
local function new_token()
  local token = redis.pcall('INCR', 'masksmith:fence')
  if type(token) ~= 'number' then
    redis.call('SET', 'masksmith:fence', string.format('%.0f', now() * 1000000))
    token = redis.call('INCR', 'masksmith:fence')
  end
  return string.format('%.0f', token)
end

-- Take the lease of a shard. Returns {token, attempt, seconds since the job started, id, shard, pool}, or {'', reason}.
-- If `max_attempts` attempts were made before, the shard fails with `exhausted_report`.
local function take_shard(id, shard, lease_ms, max_attempts, exhausted_report)
  local job = 'masksmith:job:' .. id
  if not is_live(job) then return {'', 'closed'} end
  if redis.call('SISMEMBER', job .. ':pending', shard) == 0 then return {'', 'done'} end
  local lease = job .. ':lease:' .. shard
  if exists(lease) then return {'', 'held'} end
  local attempt = redis.call('HINCRBY', job .. ':attempts', shard, 1)
  if attempt > tonumber(max_attempts) then
    finish_exhausted(job, id, shard, exhausted_report)
    return {'', 'exhausted'}
  end
  local pool = start_shard(job, id, shard)
  local token = new_token()
  redis.call('SET', lease, token, 'PX', lease_ms)
  if tonumber(lease_ms) > shared_number('masksmith:lease-ms') then
    redis.call('SET', 'masksmith:lease-ms', lease_ms)
  end
  start_job(job)
  local elapsed = now() - tonumber(redis.call('HGET', job, 'started_at'))
  return {token, tostring(attempt), string.format('%.6f', math.max(0, elapsed)), id, shard, pool}
end
