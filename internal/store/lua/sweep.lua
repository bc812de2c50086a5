-- Looks for jobs of lost workers, at most once an interval over all processes,
-- Node's included: the gate `stallBlock` is Bee-Queue's.
--
-- A job in `active` is taken back if nobody phoned in for it since the last
-- check (Bee-Queue's `stalling` snapshot) and no worker with a standing lease
-- owns it. It goes to the front of `waiting`, so that its recovery does not wait
-- for the backlog; after too many times it goes to the caller, to be failed.
--
-- A worker that could not reach Redis for a while has no lease either. Nobody has one
-- when Redis was away. So workers look twice: the first time ('doubt') they only hear
-- which jobs they would take back. A little later ('confirm') they take back those for
-- which nobody has phoned in meanwhile.
--
-- Header: interval      in ms
--         maxStalls     how often a job may be taken back; negative: no limit
--         token claim   the caller, and the claim for the jobs it gets
--         callsCursor ownersCursor stallsCursor
--                       where the clean-up of these hashes left off
--         retention     how long a silent caller is remembered, ms
--         how           'doubt', 'confirm' or, to take back at once, 'take'
-- The arguments behind the header, to confirm: the ids
-- Returns {swept '1' or '0', ms until the next check is due, cursors: calls,
-- owners, stalls, how many ids were doubted or taken back, those ids..., then id
-- and record of each job that the caller has to fail}.
-- Safe to repeat: a second call within the interval does nothing, and what was
-- confirmed is in `active` no more.

local interval, limit = tonumber(A.interval), tonumber(A.maxStalls)
local waiting, active, owners, workers, stalls, jobs = K.waiting, K.active, K.owners, K.workers, K.stalls, K.jobs

local doubt, confirm = A.how == 'doubt', A.how == 'confirm'

-- Wrong types fail before the gate is set.
local suspects = call('SMEMBERS', K.stalling)
call('LLEN', waiting)
call('LLEN', active)
call('HLEN', owners)
call('HLEN', stalls)
call('HLEN', jobs)
call('HLEN', K.calls)
call('HLEN', K.reasons)
call('SISMEMBER', K.succeeded, '')
call('SISMEMBER', K.failed, '')

-- This write comes first: a server that is out of memory lets a script go on that began
-- with a command that frees some.
call('ZREMRANGEBYSCORE', workers, '-inf', digits(now()))

if not confirm and not call('SET', K.stallBlock, '1', 'PX', interval, 'NX') then
  local left = call('PTTL', K.stallBlock)
  if left < 0 then -- somebody set it for ever
    left = interval
    call('PEXPIRE', K.stallBlock, left)
  end
  return { '0', left, A.callsCursor, A.ownersCursor, A.stallsCursor, 0 }
end

if confirm then
  local silent = {}
  for _, id in ipairs(suspects) do silent[id] = true end
  suspects = {}
  for i = A.rest, #ARGV do
    if silent[ARGV[i]] then suspects[#suspects + 1] = ARGV[i] end
  end
end

local leases = {}
local function alive(owner)
  local token = owner and string.match(owner, '^(.*)/')
  if not token then return false end
  if leases[token] == nil then
    local ends = call('ZSCORE', workers, token)
    leases[token] = ends and tonumber(ends) > now() or false
  end
  return leases[token]
end

local function page(key, cursor)
  if cursor == '0' and call('EXISTS', key) == 0 then return { '0', {} } end
  return call('HSCAN', key, cursor, 'COUNT', 100)
end

-- Which jobs to take back. Their ids leave `active` in one go: an LREM for each would walk
-- the list as often as there are jobs to take back.
local inActive, taken, some, doubted = {}, {}, 0, {}
if #suspects > 0 then
  for _, id in ipairs(call('LRANGE', active, 0, -1)) do inActive[id] = true end
end
for _, id in ipairs(suspects) do
  -- To confirm, leases do not count: after a failover, a worker may have one and not
  -- know of the job, which for the new master is still its own.
  if inActive[id] and (confirm or not alive(call('HGET', owners, id))) then
    if doubt then
      doubted[#doubted + 1] = id
    else
      taken[id], some = true, some + 1
    end
  end
end
if some > 0 and some <= 20 then
  for id in pairs(taken) do call('LREM', active, 0, id) end
elseif some > 0 then
  local kept = {}
  for _, id in ipairs(call('LRANGE', active, 0, -1)) do
    if not taken[id] then kept[#kept + 1] = id end
  end
  call('DEL', active)
  bulk('RPUSH', active, kept)
end

local stalled, failing = {}, {}
for _, id in ipairs(suspects) do
  if taken[id] then
    call('SREM', K.stalling, id)
    local record = call('HGET', jobs, id)
    if not record then
      call('HDEL', owners, id)
      call('HDEL', stalls, id)
    else
      local times = call('HINCRBY', stalls, id, 1)
      if limit >= 0 and times > limit then
        call('LPUSH', active, id)
        call('HSET', owners, id, A.token .. '/' .. A.claim)
        failing[#failing + 1] = id
        failing[#failing + 1] = record
      else
        call('HDEL', owners, id)
        call('RPUSH', waiting, id)
        stalled[#stalled + 1] = id
      end
    end
  end
end

if confirm then
  local reply = { '1', 0, A.callsCursor, A.ownersCursor, A.stallsCursor, #stalled }
  for _, id in ipairs(stalled) do reply[#reply + 1] = id end
  for _, value in ipairs(failing) do reply[#reply + 1] = value end
  return reply
end

call('DEL', K.stalling)
bulk('SADD', K.stalling, call('LRANGE', active, 0, -1))

-- Clean up what callers and Node processes leave behind, a page of each hash a round.
local called = page(K.calls, A.callsCursor)
for i = 1, #called[2], 2 do
  local at = string.match(called[2][i + 1], '^%d+ (%d+) ')
  if not at or tonumber(at) < now() - tonumber(A.retention) then
    call('HDEL', K.calls, called[2][i])
  end
end
local held = page(owners, A.ownersCursor)
for i = 1, #held[2], 2 do
  local id = held[2][i]
  if not alive(held[2][i + 1]) and id and not call('LPOS', active, id) then
    call('HDEL', owners, id)
  end
end
local counted = page(stalls, A.stallsCursor)
for i = 1, #counted[2], 2 do
  local id = counted[2][i]
  if call('HEXISTS', jobs, id) == 0 then
    call('HDEL', stalls, id)
    call('HDEL', K.reasons, id)
  elseif call('SISMEMBER', K.succeeded, id) == 1 or call('SISMEMBER', K.failed, id) == 1 then
    call('HDEL', stalls, id)
  end
end

local found = doubt and doubted or stalled
local reply = { '1', interval, called[1], held[1], counted[1], #found }
for _, id in ipairs(found) do reply[#reply + 1] = id end
for _, value in ipairs(failing) do reply[#reply + 1] = value end
return reply
