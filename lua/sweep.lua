-- Looks for jobs of lost workers, at most once an interval over all processes,
-- Node's included: the gate `stallBlock` is Bee-Queue's.
--
-- A job in `active` is taken back if nobody phoned in for it since the last
-- check (Bee-Queue's `stalling` snapshot) and no worker with a standing lease
-- owns it. It goes to the front of `waiting`, so that its recovery does not wait
-- for the backlog; after too many times it goes to the caller, to be failed.
--
-- A worker that could not reach Redis for a while has no lease either, and nor has
-- anybody when Redis was away. So workers look twice: the first time ('doubt') they
-- only hear whom they would take back, and a little later ('confirm') they take back
-- those of them for whom nobody has phoned in meanwhile.
--
-- KEYS: stallBlock stalling waiting active owners workers stalls jobs calls
--       reasons succeeded failed
-- ARGV: interval in ms, how often a job may be taken back (negative: no limit),
--       caller's token, claim for the jobs it gets, where the clean-up of the
--       hashes left off: calls, owners, stalls; how long a silent caller is
--       remembered, ms; 'doubt', 'confirm' or, to take back at once, 'take'; to
--       confirm, the ids
-- Returns {swept '1' or '0', ms until the next check is due, cursors: calls,
-- owners, stalls, how many ids were doubted or taken back, those ids..., then id
-- and record of each job that the caller has to fail}.
-- Safe to repeat: a second call within the interval does nothing, and what was
-- confirmed is in `active` no more.

local interval, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local waiting, active, owners, workers, stalls, jobs = KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]

local doubt, confirm = ARGV[9] == 'doubt', ARGV[9] == 'confirm'

-- Wrong types fail before the gate is set.
local suspects = redis.call('SMEMBERS', KEYS[2])
redis.call('LLEN', waiting)
redis.call('LLEN', active)
redis.call('HLEN', owners)
redis.call('HLEN', stalls)
redis.call('HLEN', jobs)
redis.call('HLEN', KEYS[9])
redis.call('HLEN', KEYS[10])
redis.call('SISMEMBER', KEYS[11], '')
redis.call('SISMEMBER', KEYS[12], '')

-- This comes first: a server that is out of memory lets a script go on that began
-- with a command that frees some.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', workers, '-inf', string.format('%.0f', now))

if not confirm and not redis.call('SET', KEYS[1], '1', 'PX', interval, 'NX') then
  local left = redis.call('PTTL', KEYS[1])
  if left < 0 then -- somebody set it for ever
    left = interval
    redis.call('PEXPIRE', KEYS[1], left)
  end
  return { '0', left, ARGV[5], ARGV[6], ARGV[7], 0 }
end

if confirm then
  local silent = {}
  for _, id in ipairs(suspects) do silent[id] = true end
  suspects = {}
  for i = 10, #ARGV do
    if silent[ARGV[i]] then suspects[#suspects + 1] = ARGV[i] end
  end
end

local leases = {}
local function alive(owner)
  local token = owner and string.match(owner, '^(.*)/')
  if not token then return false end
  if leases[token] == nil then
    local ends = redis.call('ZSCORE', workers, token)
    leases[token] = ends and tonumber(ends) > now or false
  end
  return leases[token]
end

local function page(key, cursor)
  if cursor == '0' and redis.call('EXISTS', key) == 0 then return { '0', {} } end
  return redis.call('HSCAN', key, cursor, 'COUNT', 100)
end

-- Whom to take back. Their ids leave `active` in one go: an LREM for each would
-- walk the list as often as there are jobs to take back.
local inActive, taken, some, doubted = {}, {}, 0, {}
if #suspects > 0 then
  for _, id in ipairs(redis.call('LRANGE', active, 0, -1)) do inActive[id] = true end
end
for _, id in ipairs(suspects) do
  -- To confirm, leases do not count: after a failover, a worker may have one and not
  -- know of the job, which for the new master is still its own.
  if inActive[id] and (confirm or not alive(redis.call('HGET', owners, id))) then
    if doubt then
      doubted[#doubted + 1] = id
    else
      taken[id], some = true, some + 1
    end
  end
end
if some > 0 and some <= 20 then
  for id in pairs(taken) do redis.call('LREM', active, 0, id) end
elseif some > 0 then
  local kept = {}
  for _, id in ipairs(redis.call('LRANGE', active, 0, -1)) do
    if not taken[id] then kept[#kept + 1] = id end
  end
  redis.call('DEL', active)
  for first = 1, #kept, 1000 do
    redis.call('RPUSH', active, unpack(kept, first, math.min(first + 999, #kept)))
  end
end

local stalled, failing = {}, {}
for _, id in ipairs(suspects) do
  if taken[id] then
    redis.call('SREM', KEYS[2], id)
    local record = redis.call('HGET', jobs, id)
    if not record then
      redis.call('HDEL', owners, id)
      redis.call('HDEL', stalls, id)
    else
      local times = redis.call('HINCRBY', stalls, id, 1)
      if limit >= 0 and times > limit then
        redis.call('LPUSH', active, id)
        redis.call('HSET', owners, id, ARGV[3] .. '/' .. ARGV[4])
        failing[#failing + 1] = id
        failing[#failing + 1] = record
      else
        redis.call('HDEL', owners, id)
        redis.call('RPUSH', waiting, id)
        stalled[#stalled + 1] = id
      end
    end
  end
end

if confirm then
  local reply = { '1', 0, ARGV[5], ARGV[6], ARGV[7], #stalled }
  for _, id in ipairs(stalled) do reply[#reply + 1] = id end
  for _, value in ipairs(failing) do reply[#reply + 1] = value end
  return reply
end

redis.call('DEL', KEYS[2])
local snapshot = redis.call('LRANGE', active, 0, -1)
for first = 1, #snapshot, 1000 do
  redis.call('SADD', KEYS[2], unpack(snapshot, first, math.min(first + 999, #snapshot)))
end

-- Some of what callers and Node processes leave behind, a page a round.
local calls = page(KEYS[9], ARGV[5])
for i = 1, #calls[2], 2 do
  local at = string.match(calls[2][i + 1], '^%d+ (%d+) ')
  if not at or tonumber(at) < now - tonumber(ARGV[8]) then
    redis.call('HDEL', KEYS[9], calls[2][i])
  end
end
local held = page(owners, ARGV[6])
for i = 1, #held[2], 2 do
  local id = held[2][i]
  if not alive(held[2][i + 1]) and id and not redis.call('LPOS', active, id) then
    redis.call('HDEL', owners, id)
  end
end
local counted = page(stalls, ARGV[7])
for i = 1, #counted[2], 2 do
  local id = counted[2][i]
  if redis.call('HEXISTS', jobs, id) == 0 then
    redis.call('HDEL', stalls, id)
    redis.call('HDEL', KEYS[10], id)
  elseif redis.call('SISMEMBER', KEYS[11], id) == 1 or redis.call('SISMEMBER', KEYS[12], id) == 1 then
    redis.call('HDEL', stalls, id)
  end
end

local found = doubt and doubted or stalled
local reply = { '1', interval, calls[1], held[1], counted[1], #found }
for _, id in ipairs(found) do reply[#reply + 1] = id end
for _, value in ipairs(failing) do reply[#reply + 1] = value end
return reply
