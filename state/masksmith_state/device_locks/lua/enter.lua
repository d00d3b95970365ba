-- Take the device for a search, beside others.
--
-- ARGV: token, lease in ms, ms that a waiting search is remembered.
-- Returns 1 if the search may go on, 0 if it must wait.

if redis.call('EXISTS', alone) == 1 then
  redis.call('SET', waiting, '1', 'PX', ARGV[3])
  return 0
end
redis.call('ZADD', beside, ms + tonumber(ARGV[2]), ARGV[1])
return 1
