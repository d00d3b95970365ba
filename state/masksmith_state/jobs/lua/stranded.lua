-- List the stranded shards: pending, without a lease, and not enqueued, or enqueued more than a number of seconds
-- before now (or before the horizon).
--
-- ARGV: id, these seconds, 1 to count them from the horizon instead of now, limit of shards, queue.
-- Returns the shards' numbers.

local id, patience_s, from_horizon, limit, queue = unpack(ARGV)
local job = 'masksmith:job:' .. id
if not is_live(job) or (redis.call('HGET', job, 'queue') or 'masksmith.cpu') ~= queue then return {} end
local at = now()
local horizon = tonumber(redis.call('GET', horizon_key(job)) or 0)
if horizon > at then
  horizon = at
  redis.call('SET', horizon_key(job), string.format('%.6f', at))
end
local longest = tonumber(redis.call('GET', 'masksmith:lease-ms') or 0)
local before = (from_horizon == '1' and horizon or at) - tonumber(patience_s)
local stranded = {}
for _, shard in ipairs(redis.call('SMEMBERS', job .. ':pending')) do
  if #stranded >= tonumber(limit) then break end
  local lease = job .. ':lease:' .. shard
  local left = redis.call('PTTL', lease)
  if left > longest then redis.call('PEXPIRE', lease, longest) end
  if left == -2 then
    local queued = tonumber(redis.call('HGET', job .. ':queued', shard) or 0)
    if queued < before or queued > at then redis.call('HSET', job .. ':queued', shard, timestamp()) end
    if queued < before then stranded[#stranded + 1] = shard end
  end
end
return stranded
