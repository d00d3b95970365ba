-- Complete a shard with its report, and end the job with its last shard.
--
-- ARGV: id, shard, token, report, 1 if the report is a failure, counter increments as JSON. A shard that writes a file
-- of an output increments no counter.
-- Returns 1 if this call completed the shard, else 0.

local id, shard, token, report, failures, counts = unpack(ARGV)
local job = 'masksmith:job:' .. id
local lease = job .. ':lease:' .. shard
if redis.call('GET', lease) ~= token then return 0 end
local is_file = writes_file(job, shard)
redis.call('DEL', lease)
settle_shard(job, id, shard)
if not is_live(job) then return 0 end
if redis.call('SREM', job .. ':pending', shard) == 0 then return 0 end
redis.call('HSET', job .. ':reports', shard, report)
redis.call('HINCRBY', job, 'failures', failures)
if not is_file then
  for name, by in pairs(cjson.decode(counts)) do add_count(name, by) end
end
finish_shard(job, id)
return 1
