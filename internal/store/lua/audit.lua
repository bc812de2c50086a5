-- Looks at jobs one after the other, and mends those that are not in exactly one
-- state.
--
-- Header: mend  '1' to mend
-- The arguments behind the header: ids
-- Returns for each id: how often it is in waiting, active, delayed, succeeded and
-- failed, and 1 if it has a record, as words; and where it was put: a state, 'removed',
-- or '' if it was left as it is.
-- Reads only, or is harmless when repeated.

local mend = A.mend == '1'
local time = now()
local names = { 'waiting', 'active', 'delayed', 'succeeded', 'failed' }

-- How often an id is in each state, and in all.
local function places(id)
  local at = {
    waiting = #call('LPOS', K.waiting, id, 'COUNT', 0),
    active = #call('LPOS', K.active, id, 'COUNT', 0),
    delayed = call('ZSCORE', K.delayed, id) and 1 or 0,
    succeeded = call('SISMEMBER', K.succeeded, id),
    failed = call('SISMEMBER', K.failed, id),
  }
  local sum = 0
  for _, name in ipairs(names) do sum = sum + at[name] end
  return at, sum
end

-- Whether a worker with a standing lease has the job.
local function isOwned(id)
  local owner = call('HGET', K.owners, id)
  local token = owner and string.match(owner, '^(.*)/')
  local lease = token and call('ZSCORE', K.workers, token)
  return lease and tonumber(lease) > time
end

-- What the record says of the job: its status, and when it is due.
local function read(record)
  local ok, job = pcall(cjson.decode, record)
  if not ok or type(job) ~= 'table' then return '', nil end
  local due = type(job.options) == 'table' and tonumber(job.options.delay)
  return job.status, due
end

-- Where a job belongs that is in several states, or in none. Whoever runs it keeps
-- it; then its end counts, if the record tells of it; and what may not have run is
-- run again rather than lost.
local function belongs(id, at, record)
  local status, due = read(record)
  if at.active > 0 and isOwned(id) then return 'active' end
  if (status == 'succeeded' or status == 'failed') and at[status] > 0 then return status end
  if at.active > 0 then return 'active' end -- if nobody has it, the stall check takes it back
  if at.waiting > 0 then return 'waiting' end
  if at.delayed > 0 then return 'delayed' end
  if at.succeeded > 0 then return 'succeeded' end
  if at.failed > 0 then return 'failed' end
  if status == 'succeeded' or status == 'failed' then return status end
  if status == 'created' and due and due > time then return 'delayed', due end
  return 'waiting'
end

local function put(id, at, state, due)
  -- Of several copies in a list, the one stays whose turn is next.
  local spare = { waiting = at.waiting, active = at.active }
  if spare[state] and spare[state] > 0 then spare[state] = spare[state] - 1 end
  if spare.waiting > 0 then call('LREM', K.waiting, spare.waiting, id) end
  if spare.active > 0 then call('LREM', K.active, spare.active, id) end
  if state ~= 'delayed' then call('ZREM', K.delayed, id) end
  if state ~= 'succeeded' then call('SREM', K.succeeded, id) end
  if state ~= 'failed' then
    call('SREM', K.failed, id)
    call('HDEL', K.reasons, id)
  end
  if state ~= 'active' then
    call('HDEL', K.owners, id)
    call('SREM', K.stalling, id)
  end
  if state == 'succeeded' or state == 'failed' or state == 'removed' then
    call('HDEL', K.stalls, id) -- as at every end
  end
  if at[state] == 0 then
    if state == 'waiting' then call('LPUSH', K.waiting, id) end
    if state == 'delayed' then call('ZADD', K.delayed, digits(due), id) end
    if state == 'succeeded' then call('SADD', K.succeeded, id) end
    if state == 'failed' then call('SADD', K.failed, id) end
  end
end

local reply = {}
for i = A.rest, #ARGV do
  local id = ARGV[i]
  local record = call('HGET', K.jobs, id)
  local at, sum = places(id)
  local state = ''
  if mend and not record and sum > 0 then
    state = 'removed'
    put(id, at, state)
  elseif mend and record and sum ~= 1 then
    local due
    state, due = belongs(id, at, record)
    put(id, at, state, due)
  end
  local words = {}
  for k, name in ipairs(names) do words[k] = at[name] end
  words[#words + 1] = record and 1 or 0
  reply[#reply + 1] = table.concat(words, ' ')
  reply[#reply + 1] = state
end
return reply
