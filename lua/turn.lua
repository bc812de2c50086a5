-- One turn of a worker: outcomes of runs in, jobs to run out. Finishing a job
-- and claiming the next are one step.
--
-- KEYS: calls jobs waiting active owners workers stalling stalls succeeded
--       failed delayed reasons events earlierDelayed
-- ARGV: lane, sequence number, worker's token, length of its lease in ms (0 ends
--       it), how many jobs to claim, how often a job may be taken back from a
--       lost worker (negative: no limit), then for each outcome six values:
--       id, the claim it was run under, what became of it, text, delay, event
--   what became of it:            text:            delay:
--     succeeded  kept             its new record
--     failed     kept             its new record
--     removed    record deleted
--     retrying   to be run again  its new record   ms; '0' for at once
--     unreadable failed, record   the reason
--                left as it is
--     returned   handed back, to                   ms; '0' for the front of
--                be run again                      waiting
--   event: what to publish, '' for nothing
-- Returns {verdicts, '1' if more may be waiting, why events could not be
-- published or '', id, record, id, record, ...}.
-- Verdicts has a letter for each outcome: y recorded; l lost, another worker has
-- or had the job; g gone, the job was removed. l and g changed nothing.
-- The claim of the jobs returned is this call's sequence number.
-- Repeatable by its name.

local calls, jobs, waiting, active, owners = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local token, lease, want = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local limit = tonumber(ARGV[6])
local first, width = 7, 6
local runs = (#ARGV - first + 1) / width
local mine = token .. '/' .. ARGV[2]

-- Ids may hold anything, so the answer to remember says how long each is.
local function answered(verdicts, more, ids)
  local parts = { verdicts, ' ', more, ' ' }
  for _, id in ipairs(ids) do
    parts[#parts + 1] = #id .. ':' .. id
  end
  return table.concat(parts)
end

local function again(answer)
  local verdicts, more, rest = string.match(answer, '^(%a*) (%d) (.*)$')
  local reply = { verdicts, more, '' }
  local at = 1
  while at <= #rest do
    local colon = string.find(rest, ':', at, true)
    local id = string.sub(rest, colon + 1, colon + tonumber(string.sub(rest, at, colon - 1)))
    at = colon + #id + 1
    if redis.call('HGET', owners, id) == mine then
      local record = redis.call('HGET', jobs, id)
      if record then
        reply[#reply + 1] = id
        reply[#reply + 1] = record
      end
    end
  end
  return reply
end

local answer, late = recall()
if late then return stale end
if answer then return again(answer) end

-- Everything is read before anything is written: a key of the wrong type fails
-- here and leaves all as it was.
local held, unread = {}, 0
if runs > 0 then
  local ids = {}
  for i = 1, runs do ids[i] = ARGV[first + (i - 1) * width] end
  held = redis.call('HMGET', owners, unpack(ids))
  redis.call('SISMEMBER', KEYS[7], '')
  redis.call('SISMEMBER', KEYS[9], '')
  redis.call('SISMEMBER', KEYS[10], '')
  unread = redis.call('HLEN', KEYS[12])
end
redis.call('ZCARD', KEYS[11])
local stalled = redis.call('HLEN', KEYS[8])
redis.call('HLEN', jobs)
redis.call('HLEN', owners)
redis.call('LLEN', waiting)
redis.call('ZCARD', KEYS[6])
local length = redis.call('LLEN', active)

-- LREM walks the list from one end: 17 ns for each entry. A job is near the
-- left end if it was claimed lately, near the right if it is among the oldest.
local function leave(id)
  local side = -1
  if length > 128 and redis.call('LPOS', active, id, 'MAXLEN', 128) then side = 1 end
  return redis.call('LREM', active, side, id) == 1
end

local verdicts = {}
local done, left, ran, records, gone, succeeded, failed = {}, {}, {}, {}, {}, {}, {}
local back, front, delayed, reasons, events = {}, {}, {}, {}, {}
local soonest
for i = 1, runs do
  local at = first + (i - 1) * width
  local id, claim, what, text, delay, event = unpack(ARGV, at, at + width - 1)
  local owned = held[i] == token .. '/' .. claim
  if owned then done[#done + 1] = id end
  if owned and leave(id) then
    verdicts[i] = 'y'
    left[#left + 1] = id
    if what ~= 'returned' then ran[#ran + 1] = id end
    if what == 'removed' then
      gone[#gone + 1] = id
    elseif what == 'unreadable' then
      failed[#failed + 1] = id
      reasons[#reasons + 1] = id
      reasons[#reasons + 1] = text
    else
      if what ~= 'returned' then
        records[#records + 1] = id
        records[#records + 1] = text
      end
      if what == 'succeeded' then
        succeeded[#succeeded + 1] = id
      elseif what == 'failed' then
        failed[#failed + 1] = id
      elseif delay ~= '0' then
        local due = now + tonumber(delay)
        delayed[#delayed + 1] = digits(due)
        delayed[#delayed + 1] = id
        if not soonest or due < soonest then soonest = due end
      elseif what == 'retrying' then
        back[#back + 1] = id
      else
        front[#front + 1] = id
      end
    end
    if event ~= '' then events[#events + 1] = event end
  elseif redis.call('HEXISTS', jobs, id) == 1 then
    verdicts[i] = 'l'
  else
    verdicts[i] = 'g'
  end
end
bulk('HDEL', owners, done)
bulk('SREM', KEYS[7], left)
bulk('HDEL', KEYS[8], ran)
bulk('HDEL', jobs, gone)
bulk('HSET', jobs, records, 2)
-- A job may have been in one of these before: a Node process can queue it again
-- without taking it out.
bulk('SREM', KEYS[9], left)
bulk('SREM', KEYS[10], left)
if unread > 0 then bulk('HDEL', KEYS[12], left) end
bulk('SADD', KEYS[9], succeeded)
bulk('SADD', KEYS[10], failed)
bulk('HSET', KEYS[12], reasons, 2)
bulk('LPUSH', waiting, back)
bulk('RPUSH', waiting, front)
bulk('ZADD', KEYS[11], delayed, 2)

-- A job on its last chance will be failed if its worker is lost once more. Two of
-- them do not run in one worker: so one that kills its worker is found out, and
-- takes no other with it for good.
local function lastChance(times)
  return times and limit >= 0 and tonumber(times) >= limit
end

local function takesRisk()
  local counted = redis.call('HGETALL', KEYS[8])
  for i = 1, #counted, 2 do
    local owner = lastChance(counted[i + 1]) and redis.call('HGET', owners, counted[i])
    if owner and string.match(owner, '^(.*)/') == token then return true end
  end
  return false
end

-- The claim. Ids without a record are dropped; so is a second copy of an id
-- that is active, which must not run twice at once. What would make the reply too
-- large is put back.
local enough = 4 * 1024 * 1024
local reply, ids, more = { table.concat(verdicts), '0', '' }, {}, '0'
local popped = want > 0 and redis.call('RPOP', waiting, want)
if popped and #popped > 0 then
  if #popped == want then more = '1' end
  local stored = redis.call('HMGET', jobs, unpack(popped))
  local owner = redis.call('HMGET', owners, unpack(popped))
  local times = stalled > 0 and redis.call('HMGET', KEYS[8], unpack(popped)) or {}
  local seen, pairs_, aside, risk, size = {}, {}, {}, nil, 0
  for i, id in ipairs(popped) do
    if size > enough then
      for k = #popped, i, -1 do redis.call('RPUSH', waiting, popped[k]) end
      more = '1'
      break
    end
    -- An owner may be left from a run that a Node process took back.
    local running = seen[id] or (owner[i] and redis.call('LPOS', active, id))
    local risky = stored[i] and not running and lastChance(times[i])
    if risky and risk == nil then risk = takesRisk() end
    if risky and risk then
      aside[#aside + 1] = digits(now + 1000)
      aside[#aside + 1] = id
    elseif stored[i] and not running then
      if risky then risk = true end
      seen[id], size = true, size + #stored[i]
      ids[#ids + 1] = id
      pairs_[#pairs_ + 1] = id
      pairs_[#pairs_ + 1] = mine
      reply[#reply + 1] = id
      reply[#reply + 1] = stored[i]
    end
  end
  bulk('LPUSH', active, ids)
  bulk('HSET', owners, pairs_, 2)
  bulk('ZADD', KEYS[11], aside, 2)
  if #aside > 0 and not soonest then soonest = now + 1000 end
end
reply[2] = more

if lease > 0 then
  redis.call('ZADD', KEYS[6], digits(now + lease), token)
else
  redis.call('ZREM', KEYS[6], token)
end
remember(answered(reply[1], more, ids))

-- Last, for it may be denied: an event is no reason to leave a job half finished.
local function publish(channel, message)
  local sent = redis.pcall('PUBLISH', channel, message)
  if type(sent) == 'table' and sent.err then reply[3] = sent.err end
end
for _, event in ipairs(events) do publish(KEYS[13], event) end
if soonest then publish(KEYS[14], digits(soonest)) end
return reply
