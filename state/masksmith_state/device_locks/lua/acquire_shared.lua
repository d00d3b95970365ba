-- Acquire the device in shared mode, for a masks job.
--
-- ARGV: token, lease in ms, ms for which `waiting` is set.
-- Returns 1 if the masks job now holds the device, 0 if a benchmark holds it or waits for it.

if redis.call('EXISTS', exclusive) == 1 then
  redis.call('SET', waiting, 'waiting:' .. ARGV[3], 'PX', ARGV[3])
  return 0
end
redis.call('ZADD', shared, ms + tonumber(ARGV[2]), ARGV[1])
return 1
