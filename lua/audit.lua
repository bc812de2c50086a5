-- Looks at jobs one after the other, and mends those that are not in exactly one
-- state.
--
-- KEYS: jobs waiting active delayed succeeded failed owners workers stalls stalling
--       reasons
-- ARGV: '1' to mend, then ids
-- Returns for each id: how often it is in waiting, active, delayed, succeeded and
-- failed, and 1 if it has a record, as words; and where it was put: a state, 'removed',
-- or '' if it was left as it is.
-- Looks, or what is harmless when repeated.

local call = redis.call
local mend = ARGV[1] == '1'
local names = { 'waiting', 'active', 'delayed', 'succeeded', 'failed' }
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- How often an id is in each state, and in all.
local function places(id)
  local at = {
    waiting = #call('LPOS', KEYS[2], id, 'COUNT', 0),
    active = #call('LPOS', KEYS[3], id, 'COUNT', 0),
    delayed = call('ZSCORE', KEYS[4], id) and 1 or 0,
    succeeded = call('SISMEMBER', KEYS[5], id),
    failed = call('SISMEMBER', KEYS[6], id),
  }
  local sum = 0
  for _, name in ipairs(names) do sum = sum + at[name] end
  return at, sum
end

-- Whether a worker with a standing lease has the job.
local function isOwned(id)
  local owner = call('HGET', KEYS[7], id)
  local token = owner and string.match(owner, '^(.*)/')
  local lease = token and call('ZSCORE', KEYS[8], token)
  return lease and tonumber(lease) > now
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
  if status == 'created' and due and due > now then return 'delayed', due end
  return 'waiting'
end

local function put(id, at, state, due)
  -- Of several copies in a list, the one stays whose turn is next.
  local spare = { waiting = at.waiting, active = at.active }
  if spare[state] and spare[state] > 0 then spare[state] = spare[state] - 1 end
  if spare.waiting > 0 then call('LREM', KEYS[2], spare.waiting, id) end
  if spare.active > 0 then call('LREM', KEYS[3], spare.active, id) end
  if state ~= 'delayed' then call('ZREM', KEYS[4], id) end
  if state ~= 'succeeded' then call('SREM', KEYS[5], id) end
  if state ~= 'failed' then
    call('SREM', KEYS[6], id)
    call('HDEL', KEYS[11], id)
  end
  if state ~= 'active' then
    call('HDEL', KEYS[7], id)
    call('SREM', KEYS[10], id)
  end
  if state == 'succeeded' or state == 'failed' or state == 'removed' then
    call('HDEL', KEYS[9], id) -- as at every end
  end
  if at[state] == 0 then
    if state == 'waiting' then call('LPUSH', KEYS[2], id) end
    if state == 'delayed' then call('ZADD', KEYS[4], string.format('%.0f', due), id) end
    if state == 'succeeded' then call('SADD', KEYS[5], id) end
    if state == 'failed' then call('SADD', KEYS[6], id) end
  end
end

local reply = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local record = call('HGET', KEYS[1], id)
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
