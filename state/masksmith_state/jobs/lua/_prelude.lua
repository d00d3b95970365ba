-- Functions shared by the scripts of the job lifecycle. Redis runs each script atomically.
--
-- Keys of job J, all below `masksmith:job:J`: the hash itself (document and state), `:shards` (index -> shard),
-- `:pending` (set of indices that are not done), `:attempts`, `:reports` (index -> report), `:lease:I` (fencing token,
-- expires), `:events` (stream); `_scheduling.lua` adds `:queued` and `:taken`. `masksmith:jobs` orders all jobs by creation and
-- `masksmith:ids` by id, `masksmith:live` holds the live ones; `masksmith:owner:K:jobs`, `:ids` and `:live` are the same
-- for key K, which is empty if no keys are used. `masksmith:finished` orders terminal jobs by their end, and
-- `masksmith:lease-ms` is the longest lease. `masksmith:counts` holds the counters of `telemetry.counters`: jobs by kind
-- and state, and the increments of completed shards. `blobs/references.py` lists the keys of uploads and results. The
-- id of every job that ends is published to the channel `masksmith:ended`. `masksmith:output:D` is the lock of an output
-- while a job that writes it is being created, D a digest of its location. All times are the Redis server's. If its
-- clock is set back, times that are in the future are reset to now.

local function now() local t = redis.call('TIME'); return tonumber(t[1]) + tonumber(t[2]) / 1000000 end
local function timestamp() return string.format('%.6f', now()) end

local function add_event(job, kind, data)
  redis.call('XADD', job .. ':events', 'MAXLEN', '~', 4096, '*', 'event', kind, 'data', data)
end

local function is_live(job)
  local state = redis.call('HGET', job, 'state')
  return state == 'queued' or state == 'running'
end

local function owner_key(job, what)
  return 'masksmith:owner:' .. (redis.call('HGET', job, 'owner') or '') .. ':' .. what
end

local function add_count(name, by) redis.call('HINCRBYFLOAT', 'masksmith:counts', name, by) end

local function count_job(job, by)
  local kind, state = unpack(redis.call('HMGET', job, 'kind', 'state'))
  add_count('jobs|' .. kind .. '|' .. state, by)
end

local function set_state(job, state)
  count_job(job, -1)
  redis.call('HSET', job, 'state', state)
  count_job(job, 1)
end

local function release_uploads(job, id)
  local owner, digests = unpack(redis.call('HMGET', job, 'owner', 'uploads'))
  for _, digest in ipairs(cjson.decode(digests or '[]')) do
    redis.call('SREM', 'masksmith:upload:' .. digest .. ':jobs', id)
    redis.call('ZADD', 'masksmith:uploads', 'XX', timestamp(), (owner or '') .. ':' .. digest)
  end
end
