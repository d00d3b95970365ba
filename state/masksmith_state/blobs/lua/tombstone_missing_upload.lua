-- Set the tombstone of an upload that may be missing from the store, so that no reference is added meanwhile.
--
-- ARGV: digest, random text, seconds after which the process that set a tombstone is taken to have stopped.
-- Returns the token of the tombstone that was set, an empty text if another process has set one, or `unreferenced` if no
-- owner refers to the upload.

if redis.call('EXISTS', 'masksmith:upload:' .. ARGV[1] .. ':owners') == 0 then return 'unreferenced' end
return set_tombstone('upload:' .. ARGV[1], ARGV[2], ARGV[3])
