-- One turn of a worker: outcomes of runs in, jobs to run out. Finishing a job
-- and claiming the next are one step.
--
-- KEYS: calls jobs waiting active owners workers stalling stalls succeeded
--       failed delayed reasons events earlierDelayed
-- ARGV: lane, sequence number, worker's token, length of its lease in ms ('' leaves
--       it as it is, 0 ends it), how many jobs to claim (negative: so many, but only
--       if the worker has made turns before), how often a job may be taken back from a
--       lost worker (negative: no limit), '1' to publish plain successes, '1' if the
--       records of the jobs claimed are not wanted, how many groups of plain successes
--       follow
--   for each group of plain successes, whose records change in their status and
--   result alone:
--     the claim they were run under, where `"status":` is in the records (from 1), how
--     many they are
--   for each plain success, group after group:
--     id, its result ('' for none)
--   for each other outcome:
--     id, the claim, what became of it, text, delay, event to publish ('' for none)
--   what became of it:            text:            delay:
--     succeeded  kept             its new record
--     failed     kept             its new record
--     removed    record deleted
--     retrying   to be run again  its new record   ms; '0' for at once
--     unreadable failed, record   the reason
--                left as it is
--     returned   handed back, to                   ms; '0' for the front of
--                be run again                      waiting
-- Returns {verdicts, '1' if more are waiting, why events could not be
-- published or '', id, record, id, record, ...}.
-- Verdicts has a letter for each outcome: y recorded; l lost, another worker has
-- or had the job; g gone, the job was removed; c a plain success whose record is
-- not as it was, to be sent with its whole record. All but y changed nothing of the
-- job.
-- The claim of the jobs returned is this call's sequence number.
-- Repeatable by its name.

local find, sub = string.find, string.sub
local jobs, waiting, active, owners = KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local token, lease, want, limit = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local publishing, sparing, groups = ARGV[7] == '1', ARGV[8] == '1', tonumber(ARGV[9])
local firstGroup, groupWidth, plainWidth, width = 10, 3, 2, 6
local firstPlain, plain = firstGroup + groups * groupWidth, 0
for g = firstGroup, firstPlain - 1, groupWidth do plain = plain + tonumber(ARGV[g + 2]) end
local first = firstPlain + plain * plainWidth
local others = (#ARGV - first + 1) / width
local mine = token .. '/' .. ARGV[2]

local answer, late = recall()
if late then return stale() end
if answer then
  -- A repeated call: the jobs that are still held under its claim are given again.
  local verdicts, more = string.match(answer, '^(%a*) (%d)$')
  local reply = { verdicts, more, '' }
  local all, seen = call('LRANGE', active, 0, -1), {}
  for from = #all, 1, -1000 do
    local ids = {}
    for k = from, math.max(1, from - 999), -1 do ids[#ids + 1] = all[k] end
    for i, owner in ipairs(call('HMGET', owners, unpack(ids))) do
      local record = owner == mine and not seen[ids[i]] and call('HGET', jobs, ids[i])
      if record then
        seen[ids[i]] = true
        reply[#reply + 1] = ids[i]
        reply[#reply + 1] = sparing and '' or record
      end
    end
  end
  return reply
end

-- A turn that has stood behind a blocking command may find the queue destroyed, and
-- made anew: then its worker may have gone long ago, and must not get jobs.
if want < 0 then
  if call('HEXISTS', KEYS[1], token .. ':turn0') == 0 then return { '', '1', '' } end
  want = -want
end

-- A key of the wrong type must fail before anything is written. So everything is
-- read first, but for `succeeded`, whose error is dealt with where it comes, and
-- `stalling`, where it does no harm.
local ids = {}
for i = 1, plain do ids[i] = ARGV[firstPlain + (i - 1) * plainWidth] end
local coming = want > 0 and call('LRANGE', waiting, -want - 1, -1) or {} -- and one more, to know whether there is
local arrived = math.min(want, #coming)
for i = 1, arrived do ids[plain + i] = coming[#coming + 1 - i] end
-- Whether there is a record, and its length, without the record: which to bring here
-- costs more than all else, if it is large.
local function lengthOf(id)
  local n = call('HSTRLEN', jobs, id)
  return (n > 0 or call('HEXISTS', jobs, id) == 1) and n
end
local stored = {}
if sparing then
  if plain > 0 then stored = call('HMGET', jobs, unpack(ids, 1, plain)) end
  for i = plain + 1, plain + arrived do stored[i] = lengthOf(ids[i]) end
elseif plain + arrived > 0 then
  stored = call('HMGET', jobs, unpack(ids))
end
for i = 1, others do ids[plain + arrived + i] = ARGV[first + (i - 1) * width] end

local held, length, stalled = nil, 0, 0
if #ids > 0 then
  held = call('HMGET', owners, unpack(ids))
  length = call('LLEN', active)
  stalled = call('HLEN', KEYS[8])
end
if others > 0 then
  call('HLEN', jobs)
  call('LLEN', waiting)
  call('SCARD', KEYS[7])
  call('SCARD', KEYS[9])
  call('SCARD', KEYS[10])
  call('HLEN', KEYS[12])
end
if others > 0 or stalled > 0 then call('ZCARD', KEYS[11]) end
if lease ~= '' then call('ZCARD', KEYS[6]) end

-- LREM walks the list from one end: 17 ns for each entry. A job is near the left
-- end if it was claimed lately, near the right if it is among the oldest; jobs of
-- one claim lie side by side. Among a few, the oldest mostly end first.
local sides = {}
local function leave(id, claim)
  local side = -1
  if length > 128 then
    side = sides[claim]
    if not side then
      local at = call('LPOS', active, id, 'MAXLEN', 256)
      side = at and 2 * at < length and 1 or -1
      sides[claim] = side
    end
  end
  return call('LREM', active, side, id) == 1
end

local verdicts, done, records, succeeded, events = {}, {}, {}, {}, {}
local ended, fine = 0, 0 -- how many are in done and in succeeded
local i = 0
for g = firstGroup, firstPlain - 1, groupWidth do
  local claim, field = ARGV[g], tonumber(ARGV[g + 1])
  local owner = token .. '/' .. claim
  for _ = 1, tonumber(ARGV[g + 2]) do
    i = i + 1
    local id, result, record = ids[i], ARGV[firstPlain + i * plainWidth - 1], stored[i]
    local verdict = record and 'l' or 'g'
    if held[i] == owner then
      local _, tail = find(record or '', '^"status":"%a+"', field)
      if record and not tail then
        verdict = 'c'
      else
        ended = ended + 1
        done[ended] = id
        if leave(id, claim) and record then
          verdict = 'y'
          fine = fine + 1
          succeeded[fine] = id
          local status, data = '"status":"succeeded","result":null', ''
          if result ~= '' then
            status = '"status":"succeeded","result":' .. result
            data = ',"data":' .. result
          end
          records[2 * fine - 1] = id
          records[2 * fine] = sub(record, 1, field - 1) .. status .. sub(record, tail + 1)
          if publishing then
            events[fine] = '{"id":"' .. id .. '","event":"succeeded"' .. data .. '}'
          end
        end
      end
    end
    verdicts[i] = verdict
  end
end

local left, ran, gone, kept, failed, back, front, delayed, reasons, soonest
if others > 0 then
  left, ran, gone, kept, failed, back, front, delayed, reasons = {}, {}, {}, {}, {}, {}, {}, {}, {}
end
for i = 1, others do
  local at = first + (i - 1) * width
  local id, claim, what, text, delay, event = unpack(ARGV, at, at + width - 1)
  local own = held[plain + arrived + i] == token .. '/' .. claim
  if own then done[#done + 1] = id end
  if own and leave(id, claim) then
    verdicts[plain + i] = 'y'
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
        kept[#kept + 1] = id
      elseif what == 'failed' then
        failed[#failed + 1] = id
      elseif delay ~= '0' then
        local due = now() + tonumber(delay)
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
  else
    verdicts[plain + i] = call('HEXISTS', jobs, id) == 1 and 'l' or 'g'
  end
end
if fine > 0 then
  local added = redis.pcall('SADD', KEYS[9], unpack(succeeded))
  if type(added) == 'table' then -- an error: nothing else was written but `active`
    bulk('LPUSH', active, succeeded)
    if others > 0 then bulk('LPUSH', active, left) end
    return added
  end
  redis.pcall('SREM', KEYS[7], unpack(succeeded))
end
bulk('HDEL', owners, done)
if stalled > 0 then
  bulk('HDEL', KEYS[8], succeeded)
  if others > 0 then bulk('HDEL', KEYS[8], ran) end
end
if others > 0 then
  bulk('SREM', KEYS[7], left)
  -- A job may have been in one of these before: a Node process can queue it again
  -- without taking it out.
  bulk('SREM', KEYS[9], left)
  bulk('SREM', KEYS[10], left)
  bulk('HDEL', KEYS[12], left)
  bulk('HDEL', jobs, gone)
end
bulk('HSET', jobs, records, 2)
if others > 0 then
  bulk('SADD', KEYS[9], kept)
  bulk('SADD', KEYS[10], failed)
  bulk('HSET', KEYS[12], reasons, 2)
end

-- The claim. Ids without a record are dropped; so is a second copy of an id
-- that is active, which must not run twice at once. What would make the reply too
-- large is left for the next.
local enough = 4 * 1024 * 1024
local reply, more = { '', '0', '' }, #coming > want and '1' or '0'
if arrived > 0 then
  local risks, aside
  if stalled > 0 then
    -- A job on its last chance will be failed if its worker is lost once more. Two
    -- of them do not run in one worker: so one that kills its worker is found out,
    -- and takes none with it for good that was beside it each time.
    local taken = false
    local function lastChance(times)
      return times and limit >= 0 and tonumber(times) >= limit
    end
    risks, aside = {}, {}
    for i, times in ipairs(call('HMGET', KEYS[8], unpack(ids, plain + 1, plain + arrived))) do
      risks[i] = lastChance(times)
      taken = taken or risks[i]
    end
    if taken then
      taken = false
      local counted = call('HGETALL', KEYS[8])
      for i = 1, #counted, 2 do
        local owner = lastChance(counted[i + 1]) and call('HGET', owners, counted[i])
        if owner and string.match(owner, '^(.*)/') == token then taken = true end
      end
    end
    risks.taken = taken
  end
  local claimed, pairs_, seen, size, looked, n = {}, {}, {}, 0, 0, 0
  for i = 1, arrived do
    if size > enough then
      more = '1'
      break
    end
    looked = i
    local id, record = ids[plain + i], stored[plain + i]
    -- An owner may be left from a run that a Node process took back, or be of a run
    -- that has ended just now: then the record is another.
    local running = seen[id]
    if not running and held[plain + i] then
      running = call('LPOS', active, id)
      record = sparing and lengthOf(id) or not sparing and call('HGET', jobs, id)
    end
    if record and not running then
      if risks and risks[i] and risks.taken then
        aside[#aside + 1] = digits(now() + 1000)
        aside[#aside + 1] = id
      else
        if risks and risks[i] then risks.taken = true end
        seen[id], size = true, size + (sparing and record or #record)
        n = n + 1
        claimed[n] = id
        pairs_[2 * n - 1] = id
        pairs_[2 * n] = mine
        reply[2 * n + 2] = id
        reply[2 * n + 3] = sparing and '' or record
      end
    end
  end
  call('LTRIM', waiting, 0, -looked - 1)
  bulk('LPUSH', active, claimed)
  bulk('HSET', owners, pairs_, 2)
  if aside and #aside > 0 then
    bulk('ZADD', KEYS[11], aside, 2)
    if not soonest then soonest = now() + 1000 end
  end
end
if others > 0 then
  bulk('LPUSH', waiting, back)
  bulk('RPUSH', waiting, front)
  bulk('ZADD', KEYS[11], delayed, 2)
  if #back + #front > 0 then more = '1' end
end
reply[1], reply[2] = table.concat(verdicts), more

if lease == '0' then
  call('ZREM', KEYS[6], token)
elseif lease ~= '' then
  call('ZADD', KEYS[6], digits(now() + tonumber(lease)), token)
end
remember(reply[1] .. ' ' .. more, lease ~= '')

-- Last, for it may be denied: an event is no reason to leave a job half finished.
local function publish(channel, message)
  local sent = redis.pcall('PUBLISH', channel, message)
  if type(sent) == 'table' and sent.err then reply[3] = sent.err end
end
for _, event in ipairs(events) do publish(KEYS[13], event) end
if soonest then publish(KEYS[14], digits(soonest)) end
return reply
