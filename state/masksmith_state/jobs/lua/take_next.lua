-- Take the next shard: of the owner that was served least for its weight, then of the highest priority, then of the
-- job that was served least. A job of this owner that has waited too long goes first, at most every other time. A
-- worker with several slots keeps one of them free of long shards.
--
-- ARGV: queue, name of the worker, number of its slots, lease in ms, maximum of attempts, report of a shard with no
-- attempt left, seconds after which a job has waited too long.
-- Returns {token, attempt, seconds since the job started, id, shard, pool, messages that the queue lacks}; {'',
-- 'unreadable', id, reason} for a record that cannot be read; or {'', 'none'}.

local queue, worker, slots, lease_ms, max_attempts, exhausted_report, age_s = unpack(ARGV)
local fair, long_key = 'masksmith:fair:' .. queue, 'masksmith:long:' .. worker

-- Whether the worker may take a long shard now. `masksmith:long:W` is the set of the leases that worker W took of long
-- shards, each with its token; leases that have ended are removed.
local function may_take_long()
  if tonumber(slots) == 1 or not exists(fair .. ':owners:long') then return true end
  local count = 0
  for _, member in ipairs(redis.call('SMEMBERS', long_key)) do
    local lease, token = string.match(member, '^(%S+) (%S+)$')
    if redis.call('GET', lease) == token then count = count + 1 else redis.call('SREM', long_key, member) end
  end
  return count < tonumber(slots) - 1
end

local pools = may_take_long() and POOLS or {''}

-- The member with the lowest score in the sorted sets `prefix .. pool`, and its pool.
local function first_of(prefix)
  local member, pool, least
  for _, candidate in ipairs(pools) do
    local first = redis.call('ZRANGE', prefix .. candidate, 0, 0, 'WITHSCORES')
    local time = tonumber(first[2])
    if time and (not least or time < least or (time == least and first[1] < member)) then
      member, pool, least = first[1], candidate, time
    end
  end
  return member, pool
end

-- A job of an owner that has waited too long, with its pool and priority; nil if the owner's last shard was one of such
-- a job, or no such job has a queued shard in `pools`.
local function aged_job(owner)
  if redis.call('HGET', fair .. ':aged', owner) then return end
  local before = exact_text(now() - tonumber(age_s))
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', fair .. ':waiting:' .. owner, '-inf', before, 'LIMIT', 0, 8)) do
    for _, priority in ipairs(PRIORITIES) do
      for _, pool in ipairs(pools) do
        if score(jobs_key(fair, owner, priority, pool), id) then return id, pool, priority end
      end
    end
  end
end

-- The job of an owner whose shard is taken next, with its pool and priority; nil if it has no queued shard in `pools`.
local function due_job(owner)
  local id, pool, priority = aged_job(owner)
  if id then
    redis.call('HSET', fair .. ':aged', owner, 1)
    return id, pool, priority
  end
  redis.call('HDEL', fair .. ':aged', owner)
  for _, candidate in ipairs(PRIORITIES) do
    id, pool = first_of(jobs_key(fair, owner, candidate, ''))
    if id then return id, pool, candidate end
  end
end

-- Take the first queued shard of a job in a pool; see `take_shard`.
local function take_first(id, pool)
  local queued = 'masksmith:job:' .. id .. ':queued' .. pool
  local shard = redis.call('ZRANGE', queued, 0, 0)[1]
  if not shard then return {''} end
  local outcome = take_shard(id, shard, lease_ms, max_attempts, exhausted_report)
  if outcome[1] == '' then redis.call('ZREM', queued, shard) end
  return outcome
end

-- Remember that the worker has taken a long shard.
local function add_long(outcome)
  local lease = 'masksmith:job:' .. outcome[4] .. ':lease:' .. outcome[5]
  redis.call('SADD', long_key, lease .. ' ' .. outcome[1])
  redis.call('EXPIRE', long_key, 86400)
end

-- Whether an error is caused by the value of a key, and not by the condition of the server.
local function is_wrong_content(reason)
  return reason:find('WRONGTYPE') or reason:find('value is not') or reason:find('user_script')
end

-- Take shards in order, until one can be taken, or a record cannot be read.
local function take_due()
  while true do
    local owner = first_of(fair .. ':owners')
    if not owner then return {'', 'none'} end
    local id, pool, priority = due_job(owner)
    if not id then
      unlist_owner(fair, owner)
    else
      local is_read, outcome = pcall(take_first, id, pool)
      if not is_read then
        local reason = type(outcome) == 'table' and outcome.err or tostring(outcome)
        if not is_wrong_content(reason) then return redis.error_reply(reason) end
        return {'', 'unreadable', id, reason}
      end
      if outcome[1] ~= '' then
        if pool == ':long' then add_long(outcome) end
        outcome[7] = messages_wanted(queue)
        return outcome
      end
      unlist_job(fair, owner, priority, id)
    end
  end
end

return take_due()
