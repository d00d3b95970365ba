-- End a job, and finish its shards.

local function end_job(job, id, state)
  set_state(job, state)
  add_count('ended|' .. redis.call('HGET', job, 'kind') .. '|' .. state, 1)
  redis.call('HSET', job, 'finished_at', timestamp())
  redis.call('DEL', job .. ':queued', job .. ':queued:long', job .. ':attempts')
  local fair, owner, priority = scheduling_of(job)
  unlist_job(fair, owner, priority, id)
  redis.call('SREM', 'masksmith:live', id)
  redis.call('SREM', owner_key(job, 'live'), id)
  redis.call('ZADD', 'masksmith:finished', timestamp(), id)
  release_inputs(job, id)
  add_event(job, 'state', cjson.encode({state = state}))
  redis.call('PUBLISH', 'masksmith:ended', id)
end

local function add_progress(job)
  local done, total = redis.call('HGET', job, 'done'), redis.call('HGET', job, 'total')
  add_event(job, 'progress', '{"done":' .. done .. ',"total":' .. total .. '}')
end

local function finish_shard(job, id)
  redis.call('HINCRBY', job, 'done', 1)
  add_progress(job)
  if redis.call('SCARD', job .. ':pending') == 0 then
    end_job(job, id, redis.call('HGET', job, 'failures') == '0' and 'succeeded' or 'failed')
  end
end
