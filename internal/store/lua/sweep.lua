-- Looks for jobs of lost workers, at most once an interval over all processes, Node's
-- included: the gate `stallBlock` is Bee-Queue's.
--
-- A job in `active` is lost if it was in `stalling`, the snapshot taken at the last check,
-- and nobody has phoned in for it since. A job that its worker has forgotten, after a
-- failover say, is lost as well, however often that worker phones in for others. A lost
-- job goes to the front of `waiting`, so that its recovery does not wait for the backlog.
-- After too many times it goes to the caller, to be failed.
--
-- A healthy worker may be silent because Redis was away. So workers look twice: the first
-- time ('doubt') they only hear which jobs are in doubt. A little later ('confirm') they
-- take back those for which nobody has phoned in meanwhile. A check that doubts somebody
-- puts its round's name into `stalling`, and a confirm acts only while it is there: the next
-- check, Node's as well, takes another snapshot. So a late confirm changes nothing.
--
-- Header: interval      in ms
--         maxStalls     how often a job may be taken back; negative: no limit
--         token claim   the caller, and the claim for the jobs it gets
--         callsCursor ownersCursor stallsCursor
--                       where the clean-up of these hashes left off
--         retention     how long a silent caller is remembered, ms
--         how           'doubt', 'confirm' or, to take back at once, 'take'
--         round         the name of this round, which is no job's id
-- The arguments behind the header, to confirm: the ids
-- Returns {swept '1' or '0', ms until the next check is due, cursors: calls,
-- owners, stalls, how many ids were doubted or taken back, those ids..., then id
-- and record of each job that the caller has to fail}.
-- Safe to repeat: a second call within the interval does nothing, and what was
-- confirmed is in `active` no more.

local interval, limit = tonumber(A.interval), tonumber(A.maxStalls)
local waiting, active, owners, workers, stalls, jobs = K.waiting, K.active, K.owners, K.workers, K.stalls, K.jobs
local doubt, confirm = A.how == 'doubt', A.how == 'confirm'

local function answer(swept, next)
  return { swept, next, A.callsCursor, A.ownersCursor, A.stallsCursor, 0 }
end

-- The gate holds its round's name and its interval. Node's holds '1'. It stands before all
-- that costs something, because every Process looks once an interval.
local gate = redis.pcall('GET', K.stallBlock)
if type(gate) == 'table' then gate = '' end -- a key of another type
if confirm then
  if call('SISMEMBER', K.stalling, A.round) == 0 then return answer('1', 0) end
elseif gate then
  local left, own = call('PTTL', K.stallBlock), tonumber(string.match(gate, ' (%d+)$') or '')
  -- No gate stays for ever. One that is further ahead than its own interval was set before
  -- the server's clock was set back.
  if left < 0 or own and left > own then
    left = own or interval
    call('PEXPIRE', K.stallBlock, left)
  end
  return answer('0', left)
end

-- Wrong types fail before the gate is set.
call('SCARD', K.stalling)
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
if not confirm then call('SET', K.stallBlock, A.round .. ' ' .. A.interval, 'PX', interval) end

-- Who is silent: of the last round's snapshot or, to confirm, of this round's.
local suspects = {}
if not confirm then
  suspects = call('SMEMBERS', K.stalling)
else
  for i = A.rest, #ARGV do
    if call('SISMEMBER', K.stalling, ARGV[i]) == 1 then suspects[#suspects + 1] = ARGV[i] end
  end
end

-- What is active, as a list and as a set. To confirm nothing, neither is needed.
local all, inActive = {}, {}
if not confirm or #suspects > 0 then all = call('LRANGE', active, 0, -1) end
local function fillSet()
  if next(inActive) then return end
  for _, id in ipairs(all) do inActive[id] = true end
end
if #suspects > 0 then fillSet() end

-- Which jobs to take back. Their ids leave `active` in one go: an LREM for each would walk
-- the list as often as there are jobs to take back.
local taken, some, doubted = {}, 0, {}
for _, id in ipairs(suspects) do
  if inActive[id] then
    if doubt then
      doubted[#doubted + 1] = id
    else
      taken[id], some = true, some + 1
    end
  end
end
if some > 0 then
  local kept = {}
  for _, id in ipairs(all) do
    if not taken[id] then kept[#kept + 1] = id end
  end
  all = kept
  if some <= 20 then
    for id in pairs(taken) do call('LREM', active, 0, id) end
  else
    call('DEL', active)
    bulk('RPUSH', active, kept)
  end
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
        all[#all + 1] = id
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
  local reply = answer('1', 0)
  reply[6] = #stalled
  for _, id in ipairs(stalled) do reply[#reply + 1] = id end
  for _, value in ipairs(failing) do reply[#reply + 1] = value end
  return reply
end

call('DEL', K.stalling)
bulk('SADD', K.stalling, all)
if #doubted > 0 then call('SADD', K.stalling, A.round) end

-- Clean up what callers and Node processes leave behind, a page of each hash a round.
local function page(key, cursor)
  if cursor == '0' and call('EXISTS', key) == 0 then return { '0', {} } end
  return call('HSCAN', key, cursor, 'COUNT', 100)
end
local called = page(K.calls, A.callsCursor)
for i = 1, #called[2], 2 do
  local at = string.match(called[2][i + 1], '^%d+ (%d+) ')
  if not at or tonumber(at) < now() - tonumber(A.retention) then
    call('HDEL', K.calls, called[2][i])
  end
end
local held = page(owners, A.ownersCursor)
if #held[2] > 0 then
  inActive = {}
  fillSet()
  for i = 1, #held[2], 2 do
    if not inActive[held[2][i]] then call('HDEL', owners, held[2][i]) end
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
