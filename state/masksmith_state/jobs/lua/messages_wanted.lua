-- Count the messages that a queue lacks.
--
-- ARGV: queue.
-- Returns their number.

return messages_wanted(ARGV[1])
