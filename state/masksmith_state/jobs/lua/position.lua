-- Estimate how many jobs, and how many seconds of work, are taken before the first shard of a queued job. The estimate
-- ignores that a job which has waited too long is taken out of turn (`aged_job` of take_next.lua). Changes nothing.
--
-- ARGV: id, limit of the number of jobs that are examined.
-- Returns {jobs ahead, seconds until the start}; the seconds are '' if no worker is alive or too many jobs are queued.
-- Returns {} if the job has no queued shard.

local id, limit = ARGV[1], tonumber(ARGV[2])
local job = 'masksmith:job:' .. id
local fair, job_owner, job_priority = scheduling_of(job)
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

-- Seconds of all queued shards of a job, and of the first one; all shards of a pool are assumed to take as long as the
-- first shard of the pool.
local function queued_seconds(other)
  local other_job, total, first = 'masksmith:job:' .. other, 0, nil
  for _, pool in ipairs(POOLS) do
    local shard = redis.call('ZRANGE', other_job .. ':queued' .. pool, 0, 0)[1]
    if shard then
      local seconds = expected_seconds(other_job, shard)
      total, first = total + seconds * redis.call('ZCARD', other_job .. ':queued' .. pool), first or seconds
    end
  end
  return total, first or 0
end

-- Seconds of an owner's work that are taken before job `id` is the owner's next job. The sum ends at `budget`, which it
-- exceeds by less than one shard.
local function seconds_ahead(owner, budget)
  local sum = 0
  for _, priority in ipairs(PRIORITIES) do
    local members, times = in_order(function(pool) return jobs_key(fair, owner, priority, pool) end)
    for _, other in ipairs(members) do
      if other == id then return sum end
      if sum >= budget then return sum end
      examined = examined + 1
      if examined > limit then is_complete = false; return sum end
      local seconds, of_shard = queued_seconds(other)
      jobs_ahead = jobs_ahead + 1
      if owner == job_owner and priority == job_priority then
        -- Jobs of one priority are served in turn, so that they are served equally.
        seconds = math.min(seconds, math.max(of_shard, times[id] - times[other]))
      end
      sum = sum + math.min(seconds, math.max(of_shard, budget - sum))
    end
  end
  return sum
end

-- Seconds of other owners' work that are taken before this job's owner has the virtual time `start`.
local function other_owners_seconds(start)
  local sum = 0
  local owners, times = in_order(function(pool) return fair .. ':owners' .. pool end)
  for _, owner in ipairs(owners) do
    local is_ahead = times[owner] < start or (times[owner] == start and owner < job_owner)
    if owner ~= job_owner and is_ahead then
      sum = sum + seconds_ahead(owner, math.max(0.001, (start - times[owner]) * weight_of(owner)))
    end
  end
  return sum
end

-- Number of slots of the living workers that consume the job's queue.
local function slot_count()
  local slots = 0
  for _, name in ipairs(redis.call('SMEMBERS', 'masksmith:workers')) do
    local is_read, worker = pcall(cjson.decode, redis.call('GET', 'masksmith:workers:' .. name) or '{}')
    for _, worker_queue in ipairs(is_read and worker.queues or {}) do
      if worker_queue == queue then slots = slots + worker.slots end
    end
  end
  return slots
end

-- Number of taken shards of the queue, the sum of their remaining seconds, and the smallest of these seconds.
local function taken_shards()
  local count, sum, shortest = 0, 0, nil
  for _, other in ipairs(redis.call('SMEMBERS', 'masksmith:live')) do
    local other_job = 'masksmith:job:' .. other
    if exists(other_job .. ':taken') and scheduling_of(other_job) == fair then
      for _, text in ipairs(redis.call('HVALS', other_job .. ':taken')) do
        local seconds, at = string.match(text, '^(%S+) (%S+)$')
        local remaining = math.max(0, tonumber(seconds) - (now() - tonumber(at)))
        count, sum, shortest = count + 1, sum + remaining, math.min(shortest or remaining, remaining)
      end
    end
  end
  return count, sum, shortest or 0
end

local virtual_time = owner_time(fair, job_owner)
if not virtual_time or not job_time(fair, job_owner, job_priority, id) then return {} end
local work = seconds_ahead(job_owner, math.huge)
work = work + other_owners_seconds(virtual_time + work / weight_of(job_owner))
local slots = slot_count()
if slots == 0 or not is_complete or redis.call('SCARD', 'masksmith:live') > 2 * limit then
  return {tostring(jobs_ahead), ''}
end
local taken, remaining, shortest = taken_shards()
if taken + jobs_ahead < slots then return {tostring(jobs_ahead), '0'} end
if work > 0 then return {tostring(jobs_ahead), exact_text((work + remaining) / slots)} end
return {tostring(jobs_ahead), exact_text(shortest)}
