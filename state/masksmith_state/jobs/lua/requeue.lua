-- Queue the shards of a job again that were taken, and whose lease has lapsed: their worker died, or released them.
--
-- ARGV: id.
-- Returns the shards' numbers.

local id, job = ARGV[1], 'masksmith:job:' .. ARGV[1]
if not is_live(job) then return {} end
local longest = tonumber(redis.call('GET', 'masksmith:lease-ms') or 0)
local lapsed = {}
for _, shard in ipairs(redis.call('HKEYS', job .. ':taken')) do
  local lease = job .. ':lease:' .. shard
  local left = redis.call('PTTL', lease)
  if left > longest then redis.call('PEXPIRE', lease, longest) end
  if left == -2 then
    settle_shard(job, id, shard)
    if redis.call('SISMEMBER', job .. ':pending', shard) == 1 then
      queue_shard(job, shard)
      lapsed[#lapsed + 1] = shard
    end
  end
end
if #lapsed > 0 then list_job(job, id) end
return lapsed
