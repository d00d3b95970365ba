-- Queue again the taken shards of a job whose lease no longer exists, because their worker died or released them.
--
-- ARGV: id.
-- Returns the shards' numbers. An error if the record of a known job is lost.

local id, job = ARGV[1], 'masksmith:job:' .. ARGV[1]
check_record(job, id)
if not is_live(job) then return {} end
local longest = shared_number('masksmith:lease-ms')
local lapsed = {}
for _, shard in ipairs(redis.call('HKEYS', job .. ':taken')) do
  local lease = job .. ':lease:' .. shard
  local ttl_ms = redis.call('PTTL', lease)
  if ttl_ms > longest then redis.call('PEXPIRE', lease, longest) end
  if ttl_ms == -2 then  -- There is no lease.
    settle_shard(job, id, shard)
    if redis.call('SISMEMBER', job .. ':pending', shard) == 1 then
      queue_shard(job, shard)
      lapsed[#lapsed + 1] = shard
    end
  end
end
if #lapsed > 0 then list_job(job, id) end
return lapsed
