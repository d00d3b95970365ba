-- Set the tombstone of a result, unless it is referenced. During a backup, the deletion is deferred instead.
--
-- ARGV: key of the result, random text, seconds after which the process that set a tombstone is taken to have stopped.
-- Returns the token of the tombstone that was set, or an empty text if there is a reference, a backup is running, or
-- another process deletes it.

redis.call('ZREM', 'masksmith:unreferenced_results', ARGV[1])
if redis.call('EXISTS', 'masksmith:result:' .. ARGV[1]) == 1 then
  clear_stopped_tombstone('result:' .. ARGV[1], ARGV[3])
  return ''
end
if defer_deletion('result:' .. ARGV[1]) then return '' end
return set_tombstone('result:' .. ARGV[1], ARGV[2], ARGV[3])
