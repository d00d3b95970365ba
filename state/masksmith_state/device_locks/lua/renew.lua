-- Renew a hold of either kind.
--
-- ARGV: token, lease in ms.
-- Returns 1 if the token still held the device, else 0.

if redis.call('GET', alone) == ARGV[1] then return redis.call('PEXPIRE', alone, ARGV[2]) end
if redis.call('ZSCORE', beside, ARGV[1]) then
  redis.call('ZADD', beside, ms + tonumber(ARGV[2]), ARGV[1])
  return 1
end
return 0
