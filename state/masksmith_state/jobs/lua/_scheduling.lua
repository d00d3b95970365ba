-- Weighted fair queueing: the next shard is taken from the API key (`owner`) that was served least for its weight.
--
-- There are two pools of queued shards: `:long` for shards that take long and cannot be cut, and `` for all others.
-- The virtual time of an owner is the seconds that its shards took, divided by its weight. The virtual time of a job is
-- the seconds that its shards took. Redis keys, where F is `masksmith:fair:Q` for queue Q, and `*` stands for a pool:
--
-- F:owners*        owners with queued shards in the pool, by virtual time
-- F:idle           owners without queued shards whose virtual time is ahead of the clock, by virtual time
-- F:jobs:K:P*      jobs of owner K and priority P with queued shards in the pool, by virtual time
-- F:waiting:K      jobs of owner K with queued shards, by the time since which they wait: when a shard of the job was
--                  last taken, or else when the job was listed
-- F:aged           hash: owners whose last shard was taken out of turn, because its job had waited too long
-- F:clocks         hash: the largest virtual time at which a shard was taken, in field `owners` of all owners, and in
--                  field `K:P` of the jobs of owner K and priority P
--
-- Below the key of a job: `:queued*` (sorted set of the indices of queued shards in the pool), and `:taken` (hash:
-- index of a shard that a worker has taken -> seconds charged in advance, and time of taking).

local POOLS = {':long', ''}
local PRIORITIES = {'interactive', 'normal', 'batch'}
local MAX_MESSAGES = 16 -- in a queue; see `messages_wanted`

-- Text of a number, with enough digits to read the same number from it.
local function exact_text(number) return string.format('%.17g', number) end

local function score(key, member) return tonumber(redis.call('ZSCORE', key, member) or nil) end

local function exists(...) return redis.call('EXISTS', ...) > 0 end

local function jobs_key(fair, owner, priority, pool) return fair .. ':jobs:' .. owner .. ':' .. priority .. pool end

local function clock(fair, field) return tonumber(redis.call('HGET', fair .. ':clocks', field) or 0) or 0 end

local function advance_clock(fair, field, time)
  if time and time > clock(fair, field) then redis.call('HSET', fair .. ':clocks', field, exact_text(time)) end
end

local function owner_time(fair, owner)
  return score(fair .. ':owners', owner) or score(fair .. ':owners:long', owner)
end

local function job_time(fair, owner, priority, id)
  return score(jobs_key(fair, owner, priority, ''), id) or score(jobs_key(fair, owner, priority, ':long'), id)
end

-- Prefix F of the queue, owner and priority of a job.
local function scheduling_of(job)
  local queue, owner, priority = unpack(redis.call('HMGET', job, 'queue', 'owner', 'priority'))
  return 'masksmith:fair:' .. (queue or 'masksmith.cpu'), owner or '', priority or 'normal'
end

local function shard_document(job, shard) return cjson.decode(redis.call('HGET', job .. ':shards', shard) or '{}') end

-- Whether a shard writes a file of the job's output, instead of solving rows of a tensor.
local function writes_file(job, shard) return type(shard_document(job, shard).file) == 'number' end

local function queue_shard(job, shard)
  local pool = shard_document(job, shard).is_long and ':long' or ''
  redis.call('ZADD', job .. ':queued' .. pool, shard, shard)
end

-- List a job in the pools in which it has queued shards. An owner or job that had no queued shards begins at the clock,
-- so that it gets no advantage from the time in which it had none.
local function list_job(job, id)
  local fair, owner, priority = scheduling_of(job)
  local last_virtual_time = tonumber(redis.call('HGET', job, 'virtual_time') or 0)
  local owner_virtual_time = owner_time(fair, owner)
    or math.max(clock(fair, 'owners'), score(fair .. ':idle', owner) or 0)
  local job_virtual_time = job_time(fair, owner, priority, id)
    or math.max(clock(fair, owner .. ':' .. priority), last_virtual_time)
  for _, pool in ipairs(POOLS) do
    if exists(job .. ':queued' .. pool) then
      redis.call('ZADD', fair .. ':owners' .. pool, exact_text(owner_virtual_time), owner)
      redis.call('ZADD', jobs_key(fair, owner, priority, pool), exact_text(job_virtual_time), id)
      redis.call('ZADD', fair .. ':waiting:' .. owner, 'NX', timestamp(), id)
      redis.call('ZREM', fair .. ':idle', owner)
    end
  end
end

-- Remove an owner from the pools in which none of its jobs is listed. An owner that is then in no pool becomes idle.
local function unlist_owner(fair, owner)
  local time = owner_time(fair, owner)
  for _, pool in ipairs(POOLS) do
    local keys = {}
    for i, priority in ipairs(PRIORITIES) do keys[i] = jobs_key(fair, owner, priority, pool) end
    if not exists(unpack(keys)) then redis.call('ZREM', fair .. ':owners' .. pool, owner) end
  end
  if time and not owner_time(fair, owner) then
    redis.call('ZADD', fair .. ':idle', exact_text(time), owner)
    redis.call('ZREMRANGEBYSCORE', fair .. ':idle', '-inf', exact_text(clock(fair, 'owners')))
    redis.call('HDEL', fair .. ':aged', owner)
  end
end

-- Remove a job from the pools in which it has no queued shard; from both pools if the job `is_gone`.
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

-- Add seconds to a member's virtual time, and return the sum; false if the sorted set has no such member.
local function add_time(key, member, seconds)
  return redis.call('ZADD', key, 'XX', 'INCR', exact_text(seconds), member)
end

-- Weight of an owner: 1 without a key, or if the record of the key cannot be read.
local function weight_of(owner)
  local text = redis.pcall('HGET', 'masksmith:key:' .. owner, 'weight')
  local weight = type(text) == 'string' and tonumber(text)
  return weight and weight > 0 and weight or 1
end

-- Charge seconds of work to a job and its owner; negative seconds correct a charge in advance that was too high.
local function charge(job, id, seconds)
  local fair, owner, priority = scheduling_of(job)
  local owner_seconds = seconds / weight_of(owner)
  local is_owner_known, job_virtual_time = add_time(fair .. ':idle', owner, owner_seconds), nil
  for _, pool in ipairs(POOLS) do
    is_owner_known = add_time(fair .. ':owners' .. pool, owner, owner_seconds) or is_owner_known
    job_virtual_time = add_time(jobs_key(fair, owner, priority, pool), id, seconds) or job_virtual_time
  end
  if not is_owner_known and owner_seconds > 0 then
    redis.call('ZADD', fair .. ':idle', exact_text(clock(fair, 'owners') + owner_seconds), owner)
  end
  if job_virtual_time then
    redis.call('HSET', job, 'virtual_time', job_virtual_time)
  else
    redis.call('HINCRBYFLOAT', job, 'virtual_time', exact_text(seconds))
  end
end

-- Seconds that a shard will take: its estimate, scaled by the ratio of actual to estimated seconds of finished shards.
local function expected_seconds(job, shard)
  local estimate = tonumber(shard_document(job, shard).cost_s or 1)
  local spent, planned = unpack(redis.call('HMGET', job, 'spent_s', 'planned_s'))
  if planned and tonumber(planned) > 0 then estimate = estimate * tonumber(spent) / tonumber(planned) end
  return math.max(estimate, 0.001)
end

-- Move a shard from queued to taken, and charge the seconds that it is expected to take. Returns its pool.
local function start_shard(job, id, shard)
  local fair, owner, priority = scheduling_of(job)
  advance_clock(fair, 'owners', owner_time(fair, owner))
  advance_clock(fair, owner .. ':' .. priority, job_time(fair, owner, priority, id))
  local pool = redis.call('ZREM', job .. ':queued:long', shard) == 1 and ':long' or ''
  redis.call('ZREM', job .. ':queued', shard)
  local seconds = expected_seconds(job, shard)
  redis.call('HSET', job .. ':taken', shard, exact_text(seconds) .. ' ' .. timestamp())
  charge(job, id, seconds)
  redis.call('ZADD', fair .. ':waiting:' .. owner, 'XX', timestamp(), id)
  unlist_job(fair, owner, priority, id)
  return pool
end

-- Charge the difference between the seconds since a shard was taken and the seconds that were charged in advance.
local function settle_shard(job, id, shard)
  local charged, at = string.match(redis.call('HGET', job .. ':taken', shard) or '', '^(%S+) (%S+)$')
  if not charged then return end
  redis.call('HDEL', job .. ':taken', shard)
  local seconds = math.max(0, now() - tonumber(at))
  redis.call('HINCRBYFLOAT', job, 'spent_s', exact_text(seconds))
  redis.call('HINCRBYFLOAT', job, 'planned_s', exact_text(tonumber(shard_document(job, shard).cost_s or 1)))
  charge(job, id, seconds - tonumber(charged))
end

-- Number of queued shards, or a number above `limit` (-1: no limit).
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

-- Number of messages to add to a queue. A queue needs a message for each queued shard, but at most `MAX_MESSAGES`,
-- because a worker that takes a shard sends the next message.
local function messages_wanted(queue)
  local waiting = redis.call('LLEN', queue)
  if waiting >= MAX_MESSAGES then return 0 end
  return math.max(0, math.min(queue_depth(queue, MAX_MESSAGES), MAX_MESSAGES) - waiting)
end
