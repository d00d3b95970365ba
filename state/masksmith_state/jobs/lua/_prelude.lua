-- Functions shared by the scripts of the job lifecycle. Redis runs each script atomically.
--
-- Redis keys of job J:
--
-- masksmith:job:J            hash: the job's plan, state and other fields
-- masksmith:job:J:shards     hash: index -> shard or case
-- masksmith:job:J:pending    set of the indices of shards that are not finished
-- masksmith:job:J:attempts   hash: index -> number of attempts
-- masksmith:job:J:reports    hash: index -> report
-- masksmith:job:J:lease:I    fencing token of the lease of shard I; expires
-- masksmith:job:J:events     stream
-- masksmith:job:J:results    set of the keys of the results that the job refers to (see `blobs/references.py`)
-- `_scheduling.lua` describes `:queued` and `:taken`.
--
-- Other Redis keys:
--
-- masksmith:jobs, :ids       all jobs, by creation and by id
-- masksmith:live             set of the live jobs
-- masksmith:owner:K:jobs, :ids, :live   the same for the jobs of API key K, which is empty if no key is required
-- masksmith:finished         jobs that have ended, by their end
-- masksmith:ended            channel to which the id of every job that ends is published
-- masksmith:lease-ms         the longest lease that was ever given, in ms
-- masksmith:counts           counters of `telemetry.counters`: jobs by kind and state, increments by finished shards
-- masksmith:output:D         lock of an output while a job that writes it is being created; D: digest of its location
--
-- All times are of the Redis server's clock. If it is set back, stored times are in the future: claims of sweeps and
-- leases are then shortened, and durations that would be negative count as 0.

local function now() local t = redis.call('TIME'); return tonumber(t[1]) + tonumber(t[2]) / 1000000 end
local function timestamp() return string.format('%.6f', now()) end

local function add_event(job, kind, data)
  redis.call('XADD', job .. ':events', 'MAXLEN', '~', 4096, '*', 'event', kind, 'data', data)
end

local function is_live(job)
  local state = redis.call('HGET', job, 'state')
  return state == 'queued' or state == 'running'
end

-- Raise an error, upon which the job is set aside, if it is in an index but its record does not exist.
local function check_record(job, id)
  if redis.call('EXISTS', job) == 1 then return end
  if redis.call('SISMEMBER', 'masksmith:live', id) == 1 or redis.call('ZSCORE', 'masksmith:jobs', id)
    or redis.call('ZSCORE', 'masksmith:finished', id) then
    error('the record of the job is lost')
  end
end

local function owner_key(job, suffix)
  return 'masksmith:owner:' .. (redis.call('HGET', job, 'owner') or '') .. ':' .. suffix
end

local function is_error(reply) return type(reply) == 'table' and reply.err ~= nil end

-- Counters are for metrics only, so one that cannot be read stops no job: it begins again at `by`.
local function add_count(name, by)
  local counts = 'masksmith:counts'
  if not is_error(redis.pcall('HINCRBYFLOAT', counts, name, by)) then return end
  if is_error(redis.pcall('HSET', counts, name, by)) then redis.call('DEL', counts) end
end

-- Number at a key that all jobs share; 0 if there is none. One that cannot be read is deleted.
local function shared_number(key)
  local text = redis.pcall('GET', key)
  local number = type(text) == 'string' and tonumber(text)
  if text and not number then redis.call('DEL', key) end
  return number or 0
end

local function count_job(job, by)
  local kind, state = unpack(redis.call('HMGET', job, 'kind', 'state'))
  add_count('jobs|' .. kind .. '|' .. state, by)
end

local function set_state(job, state)
  count_job(job, -1)
  redis.call('HSET', job, 'state', state)
  count_job(job, 1)
end

-- Record that a result lost a reference: one without any is added to the results that retention deletes.
local function note_released_result(key)
  if redis.call('EXISTS', 'masksmith:result:' .. key) == 0 then
    redis.call('ZADD', 'masksmith:unreferenced_results', timestamp(), key)
  end
end

-- Remove a job's references to what it reads: results of earlier jobs, and uploads, whose expiry is counted from now on.
local function release_inputs(job, id)
  local owner, digests = unpack(redis.call('HMGET', job, 'owner', 'uploads'))
  for _, digest in ipairs(cjson.decode(digests or '[]')) do
    -- A job that has ended has no references any more: its deletion is no use of the uploads.
    if redis.call('SREM', 'masksmith:upload:' .. digest .. ':jobs', id) == 1 then
      redis.call('ZADD', 'masksmith:uploads', 'XX', timestamp(), (owner or '') .. ':' .. digest)
    end
  end
  for _, key in ipairs(cjson.decode(redis.call('HGET', job, 'earlier_results') or '[]')) do
    redis.call('SREM', 'masksmith:result:' .. key, id .. ':reader')
    note_released_result(key)
  end
end
