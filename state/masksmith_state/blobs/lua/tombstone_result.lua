-- Set the tombstone of a result, unless it is referenced. During a backup, the deletion is deferred instead.
--
-- ARGV: key of the result, token, time before which the process that set a tombstone is taken to have stopped.
-- Returns 1 if the tombstone was set, 0 if there is a reference, a backup is running, or another process deletes it.

redis.call('ZREM', 'masksmith:unreferenced_results', ARGV[1])
if redis.call('EXISTS', 'masksmith:result:' .. ARGV[1]) == 1 then return 0 end
if defer_deletion('result:' .. ARGV[1]) then return 0 end
return set_tombstone('result:' .. ARGV[1], ARGV[2], ARGV[3])
