-- Set the tombstone of an upload, unless it is referenced; from then on no reference can be added. During a backup, the
-- deletion is deferred instead.
--
-- ARGV: digest, random text, seconds after which the process that set a tombstone is taken to have stopped.
-- Returns the token of the tombstone that was set, or an empty text if there is a reference, a backup is running, or
-- another process deletes it.

local upload = 'masksmith:upload:' .. ARGV[1]
if redis.call('EXISTS', upload .. ':owners') == 1 or redis.call('EXISTS', upload .. ':jobs') == 1 then
  clear_stopped_tombstone('upload:' .. ARGV[1], ARGV[3])
  return ''
end
if defer_deletion('upload:' .. ARGV[1]) then return '' end
redis.call('DEL', upload)
return set_tombstone('upload:' .. ARGV[1], ARGV[2], ARGV[3])
