-- Release a lease; the sweeper queues the shard again.
--
-- ARGV: id, shard, token, 1 to subtract the attempt from the number of attempts, because the shard did not fail.
-- Returns 1 if the token held the lease, else 0.

local id, shard, token, forget_attempt = unpack(ARGV)
local job = 'masksmith:job:' .. id
local lease = job .. ':lease:' .. shard
if redis.call('GET', lease) ~= token then return 0 end
redis.call('DEL', lease)
if not is_live(job) then
  if exists(job) then settle_shard(job, id, shard) end
  return 1
end
if forget_attempt == '1' then redis.call('HINCRBY', job .. ':attempts', shard, -1) end
return 1
