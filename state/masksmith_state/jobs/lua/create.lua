-- Write a job with all its shards pending.
--
-- ARGV: id, fields as JSON, shards as JSON list of strings, idempotency key or '', fingerprint, owner; most live jobs
-- of all and of the owner, most bytes of the owner, each -1 where there is no limit; uploads as JSON list of digests,
-- who must have sent them (`owner`, `anybody`, or '' for unknown), bytes of the results.
-- Returns the id of the job: the new one, or the one that the same idempotency key made before; else why there is
-- none: `conflict` of idempotency keys, `full`, `quota` or `bytes` for the limits, or `missing:` with a digest.
-- A creation that is sent twice, because its answer was lost, changes nothing the second time.

local id, fields, shards, idempotency_key, fingerprint, owner, most_live, most_live_of_owner, most_bytes, uploads,
  senders, result_bytes = unpack(ARGV)
local job, owner_keys = 'masksmith:job:' .. id, 'masksmith:owner:' .. owner
local idempotent = 'masksmith:idempotency:' .. owner .. ':' .. idempotency_key
if idempotency_key ~= '' then
  local before = redis.call('HMGET', idempotent, 'id', 'fingerprint')
  if before[1] and redis.call('EXISTS', 'masksmith:job:' .. before[1]) == 1 then
    return before[2] == fingerprint and before[1] or 'conflict'
  end
end
if redis.call('EXISTS', job) == 1 then return id end
local function reached(set, limit) return tonumber(limit) >= 0 and redis.call('SCARD', set) >= tonumber(limit) end
if reached('masksmith:live', most_live) then return 'full' end
if reached(owner_keys .. ':live', most_live_of_owner) then return 'quota' end
local kept_bytes = tonumber(redis.call('GET', owner_keys .. ':bytes') or 0)
if tonumber(most_bytes) >= 0 and kept_bytes + tonumber(result_bytes) > tonumber(most_bytes) then return 'bytes' end
local digests = cjson.decode(uploads)
for _, digest in ipairs(digests) do
  local upload = 'masksmith:upload:' .. digest
  if (senders == 'owner' and redis.call('SISMEMBER', upload .. ':owners', owner) == 0)
    or (senders == 'anybody' and redis.call('EXISTS', upload) == 0) then
    return 'missing:' .. digest
  end
end
for _, digest in ipairs(digests) do redis.call('SADD', 'masksmith:upload:' .. digest .. ':jobs', id) end
redis.call('INCRBY', owner_keys .. ':bytes', result_bytes)
if idempotency_key ~= '' then
  redis.call('HSET', idempotent, 'id', id, 'fingerprint', fingerprint)
  redis.call('EXPIRE', idempotent, 86400)
end
redis.call('HSET', job, 'owner', owner, 'uploads', uploads, 'result_bytes', result_bytes)
for name, value in pairs(cjson.decode(fields)) do redis.call('HSET', job, name, value) end
local shard_list, at = cjson.decode(shards), timestamp()
redis.call('HSET', job, 'state', 'queued', 'created_at', at, 'done', 0, 'total', #shard_list, 'failures', 0)
for i, shard in ipairs(shard_list) do
  redis.call('HSET', job .. ':shards', i - 1, shard)
  redis.call('SADD', job .. ':pending', i - 1)
  redis.call('HSET', job .. ':queued', i - 1, at)
end
redis.call('ZADD', 'masksmith:jobs', at, id)
redis.call('ZADD', owner_keys .. ':jobs', at, id)
redis.call('SADD', 'masksmith:live', id)
redis.call('SADD', owner_keys .. ':live', id)
count_job(job, 1)
add_event(job, 'state', '{"state":"queued"}')
return id
