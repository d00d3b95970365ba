-- Estimate how many jobs, and how many seconds of work, are taken before the first shard of a queued job. That a job
-- which has waited too long is taken early (`aged_job` of take_next.lua) is ignored. Changes nothing.
--
-- ARGV: id, limit of the number of jobs that are examined.
-- Returns {jobs ahead, seconds until the start}; the seconds are '' if no worker is alive or too many jobs are queued.
-- {} if the job has no queued shard.

local id, limit = ARGV[1], tonumber(ARGV[2])
local job = 'masksmith:job:' .. id
local fair, own_key, own_priority = scheduling_of(job)
local queue = redis.call('HGET', job, 'queue') or 'masksmith.cpu'
local examined, jobs_ahead, is_complete = 0, 0, true

-- Members of the sorted sets of both pools, each once, by virtual time; and their virtual times.
local function in_order(key_of_pool)
  local times, members = {}, {}
  for _, pool in ipairs(POOLS) do
    local entries = redis.call('ZRANGE', key_of_pool(pool), 0, limit, 'WITHSCORES')
    for i = 1, #entries, 2 do
      local member, time = entries[i], tonumber(entries[i + 1])
      if not times[member] then members[#members + 1] = member end
      times[member] = math.min(times[member] or time, time)
    end
  end
  table.sort(members, function(a, b)
    if times[a] ~= times[b] then return times[a] < times[b] end
    return a < b
  end)
  return members, times
end

-- Seconds of all queued shards of a job, and of its next one; all shards of a pool are assumed to be like its first.
local function queued_seconds(other)
  local key, total, first = 'masksmith:job:' .. other, 0, nil
  for _, pool in ipairs(POOLS) do
    local shard = redis.call('ZRANGE', key .. ':queued' .. pool, 0, 0)[1]
    if shard then
      local seconds = expected_seconds(key, shard)
      total, first = total + seconds * redis.call('ZCARD', key .. ':queued' .. pool), first or seconds
    end
  end
  return total, first or 0
end

-- Seconds of a key's work that are taken before job `id` is the key's next one; at most `budget`, up to a whole shard.
local function seconds_ahead(key, budget)
  local sum = 0
  for _, priority in ipairs(PRIORITIES) do
    local members, times = in_order(function(pool) return jobs_key(fair, key, priority, pool) end)
    for _, other in ipairs(members) do
      if other == id then return sum end
      if sum >= budget then return sum end
      examined = examined + 1
      if examined > limit then is_complete = false; return sum end
      local seconds, of_shard = queued_seconds(other)
      jobs_ahead = jobs_ahead + 1
      if key == own_key and priority == own_priority then
        -- Jobs of one priority are served in turn, so that they are served equally.
        seconds = math.min(seconds, math.max(of_shard, times[id] - times[other]))
      end
      sum = sum + math.min(seconds, math.max(of_shard, budget - sum))
    end
  end
  return sum
end

local function weight_of(key) return tonumber(redis.call('HGET', 'masksmith:key:' .. key, 'weight') or 1) end

-- Seconds of other keys' work that are taken before this job's key has the virtual time `start`.
local function other_keys_seconds(start)
  local sum = 0
  local keys, times = in_order(function(pool) return fair .. ':owners' .. pool end)
  for _, key in ipairs(keys) do
    local is_ahead = times[key] < start or (times[key] == start and key < own_key)
    if key ~= own_key and is_ahead then
      sum = sum + seconds_ahead(key, math.max(0.001, (start - times[key]) * weight_of(key)))
    end
  end
  return sum
end

-- Number of slots of the living workers that read the job's queue.
local function slot_count()
  local slots = 0
  for _, name in ipairs(redis.call('SMEMBERS', 'masksmith:workers')) do
    local is_read, worker = pcall(cjson.decode, redis.call('GET', 'masksmith:workers:' .. name) or '{}')
    for _, each in ipairs(is_read and worker.queues or {}) do
      if each == queue then slots = slots + worker.slots end
    end
  end
  return slots
end

-- Number of taken shards of the queue, the sum of their remaining seconds, and the least remaining seconds of one.
local function taken_shards()
  local count, sum, shortest = 0, 0, nil
  for _, other in ipairs(redis.call('SMEMBERS', 'masksmith:live')) do
    local key = 'masksmith:job:' .. other
    if exists(key .. ':taken') and scheduling_of(key) == fair then
      for _, text in ipairs(redis.call('HVALS', key .. ':taken')) do
        local seconds, at = string.match(text, '^(%S+) (%S+)$')
        local remaining = math.max(0, tonumber(seconds) - (now() - tonumber(at)))
        count, sum, shortest = count + 1, sum + remaining, math.min(shortest or remaining, remaining)
      end
    end
  end
  return count, sum, shortest or 0
end

local own_time = owner_time(fair, own_key)
if not own_time or not job_time(fair, own_key, own_priority, id) then return {} end
local work = seconds_ahead(own_key, math.huge)
work = work + other_keys_seconds(own_time + work / weight_of(own_key))
local slots = slot_count()
if slots == 0 or not is_complete or redis.call('SCARD', 'masksmith:live') > 2 * limit then
  return {tostring(jobs_ahead), ''}
end
local taken, remaining, shortest = taken_shards()
if taken + jobs_ahead < slots then return {tostring(jobs_ahead), '0'} end
if work > 0 then return {tostring(jobs_ahead), exact_text((work + remaining) / slots)} end
return {tostring(jobs_ahead), exact_text(shortest)}
