"""The atomic steps of a job's life, as Lua that the Redis server runs whole or not at all.

Keys of job J, all below `masksmith:job:J`: the hash itself (document and state), `:shards` (index -> shard),
`:pending` (set of indices), `:queued` (index -> time it was last enqueued), `:attempts`, `:reports` (index -> report),
`:lease:I` (fencing token, expires), `:events` (stream). `masksmith:jobs` orders all jobs by creation, `masksmith:live`
holds those that are not terminal; `masksmith:owner:K:jobs` and `masksmith:owner:K:live` are the same for key K, empty
where no keys are asked for. `masksmith:finished` orders those that are terminal by their end. `masksmith:horizon` is
the latest time at which a shard was enqueued that has been taken since (`masksmith:horizon:Q` in queues Q other than
the CPU workers'), `masksmith:lease-ms` the longest lease. `masksmith:counts` holds what `telemetry.counters` names:
jobs by kind and state, and what shards that are done add. What a job holds of the store is told in `blobs.references`. The
channel `masksmith:ended` tells the id of every job that ends. Times are the server's own, so no other clock matters;
should that one be set back, what it left in the future is brought back to now.
"""

_PRELUDE = """
local function now() local t = redis.call('TIME'); return tonumber(t[1]) + tonumber(t[2]) / 1000000 end
local function stamp() return string.format('%.6f', now()) end
local function event(job, kind, data)
  redis.call('XADD', job .. ':events', 'MAXLEN', '~', 4096, '*', 'event', kind, 'data', data)
end
local function live(job)
  local state = redis.call('HGET', job, 'state')
  return state == 'queued' or state == 'running'
end
local function owned(job, what)
  return 'masksmith:owner:' .. (redis.call('HGET', job, 'owner') or '') .. ':' .. what
end
local function count(name, by) redis.call('HINCRBYFLOAT', 'masksmith:counts', name, by) end
local function counted(job, by)
  local kind, state = unpack(redis.call('HMGET', job, 'kind', 'state'))
  count('jobs|' .. kind .. '|' .. state, by)
end
local function turn(job, state)
  counted(job, -1)
  redis.call('HSET', job, 'state', state)
  counted(job, 1)
end
local function uploads(job) return cjson.decode(redis.call('HGET', job, 'uploads') or '[]') end
local function let_go(job, id)
  for _, digest in ipairs(uploads(job)) do
    redis.call('SREM', 'masksmith:upload:' .. digest .. ':jobs', id)
    redis.call('ZADD', 'masksmith:uploads', 'XX', stamp(), (redis.call('HGET', job, 'owner') or '') .. ':' .. digest)
  end
end
local function close(job, id, state)
  turn(job, state)
  count('ended|' .. redis.call('HGET', job, 'kind') .. '|' .. state, 1)
  redis.call('HSET', job, 'finished_at', stamp())
  redis.call('DEL', job .. ':queued', job .. ':attempts')
  redis.call('SREM', 'masksmith:live', id)
  redis.call('SREM', owned(job, 'live'), id)
  redis.call('ZADD', 'masksmith:finished', stamp(), id)
  let_go(job, id)
  event(job, 'state', cjson.encode({state = state}))
  redis.call('PUBLISH', 'masksmith:ended', id)
end
local function progress(job)
  local done, total = redis.call('HGET', job, 'done'), redis.call('HGET', job, 'total')
  event(job, 'progress', '{"done":' .. done .. ',"total":' .. total .. '}')
end
local function horizon_of(job)
  local queue = redis.call('HGET', job, 'queue') or 'masksmith.cpu'
  return queue == 'masksmith.cpu' and 'masksmith:horizon' or 'masksmith:horizon:' .. queue
end
local function settle(job, id)
  redis.call('HINCRBY', job, 'done', 1)
  progress(job)
  if redis.call('SCARD', job .. ':pending') == 0 then
    close(job, id, redis.call('HGET', job, 'failures') == '0' and 'succeeded' or 'failed')
  end
end
"""

# ARGV: id, fields as JSON, shards as JSON list of strings, idempotency key or '', fingerprint, owner; most live jobs of
# all and of the owner, most bytes of the owner, each -1 where there is no limit; uploads as JSON list of digests, who
# must have sent them (`owner`, `anybody`, or '' for unknown), bytes of the results.
# Answers the id that holds: the new one, or the one that the same idempotency key made before; else why there is none:
# `conflict` of idempotency keys, `full`, `quota` or `bytes` for the limits, or `missing:` with a digest.
# A creation that is sent twice, because its answer was lost, changes nothing the second time.
CREATE = (
    _PRELUDE
    + """
local id, job, owner = ARGV[1], 'masksmith:job:' .. ARGV[1], 'masksmith:owner:' .. ARGV[6]
local key = 'masksmith:idempotency:' .. ARGV[6] .. ':' .. ARGV[4]
if ARGV[4] ~= '' then
  local before = redis.call('HMGET', key, 'id', 'fingerprint')
  if before[1] and redis.call('EXISTS', 'masksmith:job:' .. before[1]) == 1 then
    return before[2] == ARGV[5] and before[1] or 'conflict'
  end
end
if redis.call('EXISTS', job) == 1 then return id end
local function reached(set, limit) return tonumber(limit) >= 0 and redis.call('SCARD', set) >= tonumber(limit) end
if reached('masksmith:live', ARGV[7]) then return 'full' end
if reached(owner .. ':live', ARGV[8]) then return 'quota' end
local most = tonumber(ARGV[9])
if most >= 0 and tonumber(redis.call('GET', owner .. ':bytes') or 0) + tonumber(ARGV[12]) > most then return 'bytes' end
local digests = cjson.decode(ARGV[10])
for _, digest in ipairs(digests) do
  local upload = 'masksmith:upload:' .. digest
  if (ARGV[11] == 'owner' and redis.call('SISMEMBER', upload .. ':owners', ARGV[6]) == 0)
    or (ARGV[11] == 'anybody' and redis.call('EXISTS', upload) == 0) then
    return 'missing:' .. digest
  end
end
for _, digest in ipairs(digests) do redis.call('SADD', 'masksmith:upload:' .. digest .. ':jobs', id) end
redis.call('INCRBY', owner .. ':bytes', ARGV[12])
if ARGV[4] ~= '' then
  redis.call('HSET', key, 'id', id, 'fingerprint', ARGV[5])
  redis.call('EXPIRE', key, 86400)
end
redis.call('HSET', job, 'owner', ARGV[6], 'uploads', ARGV[10], 'result_bytes', ARGV[12])
for name, value in pairs(cjson.decode(ARGV[2])) do redis.call('HSET', job, name, value) end
local shards = cjson.decode(ARGV[3])
local at = stamp()
redis.call('HSET', job, 'state', 'queued', 'created_at', at, 'done', 0, 'total', #shards, 'failures', 0)
for i, shard in ipairs(shards) do
  redis.call('HSET', job .. ':shards', i - 1, shard)
  redis.call('SADD', job .. ':pending', i - 1)
  redis.call('HSET', job .. ':queued', i - 1, at)
end
redis.call('ZADD', 'masksmith:jobs', at, id)
redis.call('ZADD', owner .. ':jobs', at, id)
redis.call('SADD', 'masksmith:live', id)
redis.call('SADD', owner .. ':live', id)
counted(job, 1)
event(job, 'state', '{"state":"queued"}')
return id
"""
)

# ARGV: id, shard, lease in ms, attempts allowed, report for a shard whose attempts are used up.
# Answers {token, attempt, seconds since the job started}, or {'', reason}.
TAKE = (
    _PRELUDE
    + """
local id, shard, job = ARGV[1], ARGV[2], 'masksmith:job:' .. ARGV[1]
if not live(job) then return {'', 'closed'} end
if redis.call('SISMEMBER', job .. ':pending', shard) == 0 then return {'', 'done'} end
local lease = job .. ':lease:' .. shard
if redis.call('EXISTS', lease) == 1 then return {'', 'held'} end
local attempt = redis.call('HINCRBY', job .. ':attempts', shard, 1)
local queued = redis.call('HGET', job .. ':queued', shard)
if queued and tonumber(queued) > tonumber(redis.call('GET', horizon_of(job)) or 0) then
  redis.call('SET', horizon_of(job), queued)
end
redis.call('HDEL', job .. ':queued', shard)
if attempt > tonumber(ARGV[4]) then
  redis.call('HSET', job .. ':reports', shard, ARGV[5])
  redis.call('HINCRBY', job, 'failures', 1)
  redis.call('SREM', job .. ':pending', shard)
  count('shards||failed', 1)
  settle(job, id)
  return {'', 'exhausted'}
end
local token = tostring(redis.call('INCR', 'masksmith:fence'))
redis.call('SET', lease, token, 'PX', ARGV[3])
if tonumber(ARGV[3]) > tonumber(redis.call('GET', 'masksmith:lease-ms') or 0) then
  redis.call('SET', 'masksmith:lease-ms', ARGV[3])
end
if redis.call('HGET', job, 'state') == 'queued' then
  turn(job, 'running')
  redis.call('HSET', job, 'started_at', stamp())
  event(job, 'state', '{"state":"running"}')
end
local elapsed = now() - tonumber(redis.call('HGET', job, 'started_at'))
return {token, tostring(attempt), string.format('%.6f', math.max(0, elapsed))}
"""
)

# ARGV: id, shard, token, lease in ms. Answers 1 while the job lives and the lease is ours.
RENEW = (
    _PRELUDE
    + """
local job = 'masksmith:job:' .. ARGV[1]
local lease = job .. ':lease:' .. ARGV[2]
if redis.call('GET', lease) ~= ARGV[3] then return 0 end
redis.call('PEXPIRE', lease, ARGV[4])
return live(job) and 1 or 0
"""
)

# ARGV: id, shard, token, 1 to forget the attempt. Gives a lease back; the attempt of a shard that failed stays counted,
# for whatever ended it may end the next one.
RELEASE = (
    _PRELUDE
    + """
local job = 'masksmith:job:' .. ARGV[1]
local lease = job .. ':lease:' .. ARGV[2]
if redis.call('GET', lease) ~= ARGV[3] then return 0 end
redis.call('DEL', lease)
if ARGV[4] == '1' and live(job) then redis.call('HINCRBY', job .. ':attempts', ARGV[2], -1) end
return 1
"""
)

# ARGV: id, shard, token, kind, data as JSON. Adds an event to a job whose shard is ours. Answers 1 if it was.
TELL = (
    _PRELUDE
    + """
local job = 'masksmith:job:' .. ARGV[1]
if redis.call('GET', job .. ':lease:' .. ARGV[2]) ~= ARGV[3] or not live(job) then return 0 end
event(job, ARGV[4], ARGV[5])
return 1
"""
)

# ARGV: id, shard, token, report, 1 if the report is a failure, what it adds to the counts as JSON. Answers 1 if
# the shard was struck off by this call.
STRIKE = (
    _PRELUDE
    + """
local id, shard, job = ARGV[1], ARGV[2], 'masksmith:job:' .. ARGV[1]
local lease = job .. ':lease:' .. shard
if redis.call('GET', lease) ~= ARGV[3] then return 0 end
redis.call('DEL', lease)
if not live(job) then return 0 end
if redis.call('SREM', job .. ':pending', shard) == 0 then return 0 end
redis.call('HSET', job .. ':reports', shard, ARGV[4])
redis.call('HINCRBY', job, 'failures', ARGV[5])
for name, by in pairs(cjson.decode(ARGV[6])) do count(name, by) end
settle(job, id)
return 1
"""
)

# ARGV: id. Answers -1 for an unknown job, 1 if this call canceled it, 0 if it was terminal already.
CANCEL = (
    _PRELUDE
    + """
local id, job = ARGV[1], 'masksmith:job:' .. ARGV[1]
if redis.call('EXISTS', job) == 0 then return -1 end
if not live(job) then return 0 end
redis.call('DEL', job .. ':pending')
close(job, id, 'canceled')
return 1
"""
)

# ARGV: id. Answers 0 for an unknown job. Results that no other job holds are left to whoever frees them.
DELETE = (
    _PRELUDE
    + """
local id, job = ARGV[1], 'masksmith:job:' .. ARGV[1]
if redis.call('EXISTS', job) == 0 then return 0 end
counted(job, -1)
redis.call('SREM', 'masksmith:live', id)
redis.call('SREM', owned(job, 'live'), id)
redis.call('ZREM', 'masksmith:jobs', id)
redis.call('ZREM', owned(job, 'jobs'), id)
redis.call('ZREM', 'masksmith:finished', id)
let_go(job, id)
for _, key in ipairs(redis.call('SMEMBERS', job .. ':results')) do
  redis.call('SREM', 'masksmith:result:' .. key, id)
  if redis.call('EXISTS', 'masksmith:result:' .. key) == 0 then redis.call('ZADD', 'masksmith:unheld', stamp(), key) end
end
redis.call('DECRBY', owned(job, 'bytes'), redis.call('HGET', job, 'result_bytes') or 0)
for _, part in ipairs({':results', ':shards', ':pending', ':queued', ':attempts', ':reports', ':events'}) do
  redis.call('DEL', job .. part)
end
redis.call('DEL', job)
return 1
"""
)

# ARGV: id, patience in seconds, 1 if it counts from the horizon instead of now, most shards to name, queue. Answers the
# pending shards that nobody holds and no message will bring back: their lease has lapsed, or they were enqueued longer
# before that than patience allows.
STRANDED = (
    _PRELUDE
    + """
local job = 'masksmith:job:' .. ARGV[1]
if not live(job) or (redis.call('HGET', job, 'queue') or 'masksmith.cpu') ~= ARGV[5] then return {} end
local at = now()
local horizon = tonumber(redis.call('GET', horizon_of(job)) or 0)
if horizon > at then
  horizon = at
  redis.call('SET', horizon_of(job), string.format('%.6f', at))
end
local longest = tonumber(redis.call('GET', 'masksmith:lease-ms') or 0)
local before = (ARGV[3] == '1' and horizon or at) - tonumber(ARGV[2])
local found = {}
for _, shard in ipairs(redis.call('SMEMBERS', job .. ':pending')) do
  if #found >= tonumber(ARGV[4]) then break end
  local lease = job .. ':lease:' .. shard
  local left = redis.call('PTTL', lease)
  if left > longest then redis.call('PEXPIRE', lease, longest) end
  if left == -2 then
    local queued = tonumber(redis.call('HGET', job .. ':queued', shard) or 0)
    if queued < before or queued > at then redis.call('HSET', job .. ':queued', shard, stamp()) end
    if queued < before then found[#found + 1] = shard end
  end
end
return found
"""
)

# ARGV: period in ms, what is swept or '' for shards. Answers 1 for the first that asks in a period; one that would end
# later began before the clock was set back.
CLAIM_SWEEP = """
local key, period = 'masksmith:sweeper' .. ARGV[2], tonumber(ARGV[1])
if redis.call('PTTL', key) > period then redis.call('DEL', key) end
return redis.call('SET', key, '1', 'NX', 'PX', period) and 1 or 0
"""
