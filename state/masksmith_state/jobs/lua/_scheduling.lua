-- Weighted fair queueing: the order in which queued shards are taken, from the key that was served least.
--
-- A shard that takes long and cannot be cut is in the pool `:long`, every other one in the pool ``. Keys of Redis, with
-- F = `masksmith:fair:Q` for queue Q, and pool `` or `:long` at the end where `*` is:
-- F:owners* (keys with queued shards, by virtual time: seconds of work served, divided by the key's weight), F:idle
-- (virtual times of keys without queued shards, while they are ahead of the clock), F:jobs:K:P* (jobs of key K and
-- priority P with queued shards, by the seconds of work served), F:waiting:K (jobs of key K with queued shards, by the
-- time since which they wait), F:aged (keys whose last shard was taken because of its age), F:clocks (virtual times of
-- the shard that was taken last: field `owners`, and `K:P` for the jobs of a key). Below a job: `:queued*` (queued
-- indices) and `:taken` (index -> seconds charged in advance, and time of taking).

local POOLS = {':long', ''}
local PRIORITIES = {'interactive', 'normal', 'batch'}
local MESSAGES = 16

local function exact(number) return string.format('%.17g', number) end

local function score(key, member) return tonumber(redis.call('ZSCORE', key, member) or nil) end

local function exists(...) return redis.call('EXISTS', ...) > 0 end

local function jobs_key(fair, owner, priority, pool) return fair .. ':jobs:' .. owner .. ':' .. priority .. pool end

local function clock(fair, field) return tonumber(redis.call('HGET', fair .. ':clocks', field) or 0) end

local function advance_clock(fair, field, time)
  if time and time > clock(fair, field) then redis.call('HSET', fair .. ':clocks', field, exact(time)) end
end

local function owner_time(fair, owner)
  return score(fair .. ':owners', owner) or score(fair .. ':owners:long', owner)
end

local function job_time(fair, owner, priority, id)
  return score(jobs_key(fair, owner, priority, ''), id) or score(jobs_key(fair, owner, priority, ':long'), id)
end

local function place_of(job)
  local queue, owner, priority = unpack(redis.call('HMGET', job, 'queue', 'owner', 'priority'))
  return 'masksmith:fair:' .. (queue or 'masksmith.cpu'), owner or '', priority or 'normal'
end

local function shard_document(job, shard) return cjson.decode(redis.call('HGET', job .. ':shards', shard) or '{}') end

local function queue_shard(job, shard)
  local pool = shard_document(job, shard).is_long and ':long' or ''
  redis.call('ZADD', job .. ':queued' .. pool, shard, shard)
end

-- List a job in the pools in which it has queued shards. What was idle begins at the clock: nothing is saved up.
local function list_job(job, id)
  local fair, owner, priority = place_of(job)
  local served = tonumber(redis.call('HGET', job, 'virtual_time') or 0)
  local of_owner = owner_time(fair, owner)
    or math.max(clock(fair, 'owners'), score(fair .. ':idle', owner) or 0)
  local of_job = job_time(fair, owner, priority, id) or math.max(clock(fair, owner .. ':' .. priority), served)
  for _, pool in ipairs(POOLS) do
    if exists(job .. ':queued' .. pool) then
      redis.call('ZADD', fair .. ':owners' .. pool, exact(of_owner), owner)
      redis.call('ZADD', jobs_key(fair, owner, priority, pool), exact(of_job), id)
      redis.call('ZADD', fair .. ':waiting:' .. owner, 'NX', timestamp(), id)
      redis.call('ZREM', fair .. ':idle', owner)
    end
  end
end

-- Remove a key from the pools in which none of its jobs is listed.
local function unlist_owner(fair, owner)
  local time = owner_time(fair, owner)
  for _, pool in ipairs(POOLS) do
    local keys = {}
    for i, priority in ipairs(PRIORITIES) do keys[i] = jobs_key(fair, owner, priority, pool) end
    if not exists(unpack(keys)) then redis.call('ZREM', fair .. ':owners' .. pool, owner) end
  end
  if time and not owner_time(fair, owner) then
    redis.call('ZADD', fair .. ':idle', exact(time), owner)
    redis.call('ZREMRANGEBYSCORE', fair .. ':idle', '-inf', exact(clock(fair, 'owners')))
    redis.call('HDEL', fair .. ':aged', owner)
  end
end

-- Remove a job from the pools in which it has no queued shard, or from both.
local function unlist_job(fair, owner, priority, id, is_gone)
  local job, is_listed = 'masksmith:job:' .. id, false
  for _, pool in ipairs(POOLS) do
    if not is_gone and exists(job .. ':queued' .. pool) then
      is_listed = true
    else
      redis.call('ZREM', jobs_key(fair, owner, priority, pool), id)
    end
  end
  if not is_listed then redis.call('ZREM', fair .. ':waiting:' .. owner, id) end
  unlist_owner(fair, owner)
end

local function add_time(key, member, seconds)
  return redis.call('ZADD', key, 'XX', 'INCR', exact(seconds), member)
end

-- Charge seconds of work to a job and its key; they are negative where too many were charged in advance.
local function charge(job, id, seconds)
  local fair, owner, priority = place_of(job)
  local weight = tonumber(redis.call('HGET', 'masksmith:key:' .. owner, 'weight') or 1)
  local share, is_owner_known, of_job = seconds / weight, add_time(fair .. ':idle', owner, seconds / weight), nil
  for _, pool in ipairs(POOLS) do
    is_owner_known = add_time(fair .. ':owners' .. pool, owner, share) or is_owner_known
    of_job = add_time(jobs_key(fair, owner, priority, pool), id, seconds) or of_job
  end
  if not is_owner_known and share > 0 then
    redis.call('ZADD', fair .. ':idle', exact(clock(fair, 'owners') + share), owner)
  end
  if of_job then
    redis.call('HSET', job, 'virtual_time', of_job)
  else
    redis.call('HINCRBYFLOAT', job, 'virtual_time', exact(seconds))
  end
end

-- Seconds that a shard will take: its estimate, corrected by what the job's shards took so far.
local function expected_seconds(job, shard)
  local estimate = tonumber(shard_document(job, shard).cost_s or 1)
  local spent, planned = unpack(redis.call('HMGET', job, 'spent_s', 'planned_s'))
  if planned and tonumber(planned) > 0 then estimate = estimate * tonumber(spent) / tonumber(planned) end
  return math.max(estimate, 0.001)
end

-- Move a shard from queued to taken, and charge what it will take. Returns its pool.
local function start_shard(job, id, shard)
  local fair, owner, priority = place_of(job)
  advance_clock(fair, 'owners', owner_time(fair, owner))
  advance_clock(fair, owner .. ':' .. priority, job_time(fair, owner, priority, id))
  local pool = redis.call('ZREM', job .. ':queued:long', shard) == 1 and ':long' or ''
  redis.call('ZREM', job .. ':queued', shard)
  local seconds = expected_seconds(job, shard)
  redis.call('HSET', job .. ':taken', shard, exact(seconds) .. ' ' .. timestamp())
  charge(job, id, seconds)
  redis.call('ZADD', fair .. ':waiting:' .. owner, 'XX', timestamp(), id)
  unlist_job(fair, owner, priority, id)
  return pool
end

-- Charge what a taken shard took in excess of what was charged in advance.
local function settle_shard(job, id, shard)
  local charged, at = string.match(redis.call('HGET', job .. ':taken', shard) or '', '^(%S+) (%S+)$')
  if not charged then return end
  redis.call('HDEL', job .. ':taken', shard)
  local seconds = math.max(0, now() - tonumber(at))
  redis.call('HINCRBYFLOAT', job, 'spent_s', exact(seconds))
  redis.call('HINCRBYFLOAT', job, 'planned_s', exact(tonumber(shard_document(job, shard).cost_s or 1)))
  charge(job, id, seconds - tonumber(charged))
end

-- Number of queued shards, or a number above `limit`.
local function queue_depth(queue, limit)
  local fair, count = 'masksmith:fair:' .. queue, 0
  for _, pool in ipairs(POOLS) do
    for _, owner in ipairs(redis.call('ZRANGE', fair .. ':owners' .. pool, 0, limit)) do
      for _, priority in ipairs(PRIORITIES) do
        for _, id in ipairs(redis.call('ZRANGE', jobs_key(fair, owner, priority, pool), 0, limit)) do
          if limit >= 0 and count > limit then return count end
          local queued = redis.pcall('ZCARD', 'masksmith:job:' .. id .. ':queued' .. pool)
          count = count + (type(queued) == 'number' and queued or 0)
        end
      end
    end
  end
  return count
end

-- Number of messages that a queue lacks: a few for all of its shards, because the worker that takes one sends the next.
local function messages_wanted(queue)
  local waiting = redis.call('LLEN', queue)
  if waiting >= MESSAGES then return 0 end
  return math.max(0, math.min(queue_depth(queue, MESSAGES), MESSAGES) - waiting)
end
