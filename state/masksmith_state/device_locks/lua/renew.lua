-- Renew a lock, shared or exclusive.
--
-- ARGV: token, lease in ms.
-- Returns 1 if the token still held the device, else 0.

if redis.call('GET', exclusive) == ARGV[1] then return redis.call('PEXPIRE', exclusive, ARGV[2]) end
if redis.call('ZSCORE', shared, ARGV[1]) then
  redis.call('ZADD', shared, ms + tonumber(ARGV[2]), ARGV[1])
  return 1
end
return 0
