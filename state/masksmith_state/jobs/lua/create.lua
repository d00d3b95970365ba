-- Create a job with all its shards pending.
--
-- ARGV: id, fields as JSON, shards as JSON list of strings, idempotency key or '', fingerprint of the request, owner;
-- limits of live jobs of all owners, live jobs of the owner, stored bytes of the owner, and bytes of the owner's
-- records, each -1 for no limit; uploads as JSON list of digests, who must have sent them (`owner`, `anybody`, or ''
-- for no check), bytes of the results, bytes of the job's records, indices of the long shards as JSON list, keys of the
-- results of earlier jobs that the job reads as JSON list; without the check of uploads these are not checked either.
-- Returns the id of the job: the new one, or an earlier one with the same idempotency key. If none was created, the
-- reason: `conflict` of idempotency keys; `full`, `quota`, `bytes` or `records` for the limits; `missing:` with
-- the digest of an upload; or `result_missing`. A call that is repeated because its reply was lost changes nothing.

local id, fields, shards, idempotency_key, fingerprint, owner, max_live, max_live_of_owner, max_bytes, max_record_bytes,
  uploads, uploaders, result_bytes, record_bytes, long_shards, earlier_results = unpack(ARGV)
local job, owner_keys = 'masksmith:job:' .. id, 'masksmith:owner:' .. owner
local idempotent = 'masksmith:idempotency:' .. owner .. ':' .. idempotency_key
if idempotency_key ~= '' then
  local before = redis.call('HMGET', idempotent, 'id', 'fingerprint')
  if before[1] and redis.call('EXISTS', 'masksmith:job:' .. before[1]) == 1 then
    return before[2] == fingerprint and before[1] or 'conflict'
  end
end
if redis.call('EXISTS', job) == 1 then return id end
-- Whether a set has at least `limit` members (-1: no limit).
local function is_reached(set, limit) return tonumber(limit) >= 0 and redis.call('SCARD', set) >= tonumber(limit) end
if is_reached('masksmith:live', max_live) then return 'full' end
if is_reached(owner_keys .. ':live', max_live_of_owner) then return 'quota' end
local stored_bytes = tonumber(redis.call('GET', owner_keys .. ':bytes') or 0)
if tonumber(max_bytes) >= 0 and stored_bytes + tonumber(result_bytes) > tonumber(max_bytes) then return 'bytes' end
local owner_record_bytes = tonumber(redis.call('GET', owner_keys .. ':record_bytes') or 0)
if tonumber(max_record_bytes) >= 0 and owner_record_bytes + tonumber(record_bytes) > tonumber(max_record_bytes) then
  return 'records'
end
local digests = cjson.decode(uploads)
for _, digest in ipairs(digests) do
  local upload = 'masksmith:upload:' .. digest
  if (uploaders == 'owner' and redis.call('SISMEMBER', upload .. ':owners', owner) == 0)
    or (uploaders == 'anybody' and redis.call('EXISTS', upload) == 0) then
    return 'missing:' .. digest
  end
end
local result_keys = cjson.decode(earlier_results)
for _, key in ipairs(result_keys) do
  -- A result without a reference is deleted, or will be.
  if uploaders ~= '' and redis.call('EXISTS', 'masksmith:result:' .. key) == 0 then return 'result_missing' end
end
for _, digest in ipairs(digests) do redis.call('SADD', 'masksmith:upload:' .. digest .. ':jobs', id) end
for _, key in ipairs(result_keys) do redis.call('SADD', 'masksmith:result:' .. key, id .. ':reader') end
redis.call('INCRBY', owner_keys .. ':bytes', result_bytes)
redis.call('INCRBY', owner_keys .. ':record_bytes', record_bytes)
if idempotency_key ~= '' then
  redis.call('HSET', idempotent, 'id', id, 'fingerprint', fingerprint)
  redis.call('EXPIRE', idempotent, 86400)
end
redis.call('HSET', job, 'owner', owner, 'uploads', uploads, 'earlier_results', earlier_results, 'result_bytes',
  result_bytes, 'record_bytes', record_bytes, 'idempotent', idempotency_key ~= '' and idempotent or '')
for name, value in pairs(cjson.decode(fields)) do redis.call('HSET', job, name, value) end
local shard_list, at = cjson.decode(shards), timestamp()
redis.call('HSET', job, 'state', 'queued', 'created_at', at, 'done', 0, 'total', #shard_list, 'failures', 0)
for i, shard in ipairs(shard_list) do
  redis.call('HSET', job .. ':shards', i - 1, shard)
  redis.call('SADD', job .. ':pending', i - 1)
end
local is_long = {}
for _, shard in ipairs(cjson.decode(long_shards)) do is_long[shard] = true end
for i = 0, #shard_list - 1 do redis.call('ZADD', job .. ':queued' .. (is_long[i] and ':long' or ''), i, i) end
list_job(job, id)
redis.call('ZADD', 'masksmith:jobs', at, id)
redis.call('ZADD', owner_keys .. ':jobs', at, id)
redis.call('ZADD', 'masksmith:ids', 0, id)
redis.call('ZADD', owner_keys .. ':ids', 0, id)
redis.call('SADD', 'masksmith:live', id)
redis.call('SADD', owner_keys .. ':live', id)
count_job(job, 1)
add_event(job, 'state', '{"state":"queued"}')
return id
