-- Section of turn.lua: records what became of the jobs that have ended.
--
-- Leaves for the next sections: verdicts, events (to publish), back and front (ids to put
-- into waiting, at its two ends), delayed, soonest (the first due time of those delayed).

-- leave takes an id out of `active`. LREM walks the list from one end, 17 ns an entry. A
-- job is near the left end if it was claimed lately, and near the right end if it is
-- among the oldest. Jobs of one claim lie side by side. Among a few, the oldest mostly
-- end first.
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
  local claim, statusAt = ARGV[g], tonumber(ARGV[g + 1])
  local owner = token .. '/' .. claim
  for _ = 1, tonumber(ARGV[g + 2]) do
    i = i + 1
    local id, result, record = ids[i], ARGV[firstPlain + i * plainWidth - 1], stored[i]
    local verdict = record and 'l' or 'g'
    if held[i] == owner then
      local _, tail = find(record or '', '^"status":"%a+"', statusAt)
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
          records[2 * fine] = sub(record, 1, statusAt - 1) .. status .. sub(record, tail + 1)
          if publishing then
            events[fine] = '{"id":"' .. id .. '","event":"succeeded"' .. data .. '}'
          end
        end
      end
    end
    verdicts[i] = verdict
  end
end

local left, ran, removed, kept, failed, back, front, delayed, reasons, soonest
if others > 0 then
  left, ran, removed, kept, failed, back, front, delayed, reasons = {}, {}, {}, {}, {}, {}, {}, {}, {}
end
for i = 1, others do
  local at = first + (i - 1) * width
  local id, claim, kind, payload, delay, event = unpack(ARGV, at, at + width - 1)
  local own = held[plain + arrived + i] == token .. '/' .. claim
  if own then done[#done + 1] = id end
  if own and leave(id, claim) then
    verdicts[plain + i] = 'y'
    left[#left + 1] = id
    if kind ~= 'returned' then ran[#ran + 1] = id end
    if kind == 'removed' then
      removed[#removed + 1] = id
    elseif kind == 'unreadable' then
      failed[#failed + 1] = id
      reasons[#reasons + 1] = id
      reasons[#reasons + 1] = payload
    else
      if kind ~= 'returned' then
        records[#records + 1] = id
        records[#records + 1] = payload
      end
      if kind == 'succeeded' then
        kept[#kept + 1] = id
      elseif kind == 'failed' then
        failed[#failed + 1] = id
      elseif delay ~= '0' then
        local due = now() + tonumber(delay)
        delayed[#delayed + 1] = digits(due)
        delayed[#delayed + 1] = id
        if not soonest or due < soonest then soonest = due end
      elseif kind == 'retrying' then
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
  local added = redis.pcall('SADD', K.succeeded, unpack(succeeded))
  if type(added) == 'table' then -- an error: nothing else was written but `active`
    bulk('LPUSH', active, succeeded)
    if others > 0 then bulk('LPUSH', active, left) end
    return added
  end
  redis.pcall('SREM', K.stalling, unpack(succeeded))
end
bulk('HDEL', owners, done)
if stalled > 0 then
  bulk('HDEL', K.stalls, succeeded)
  if others > 0 then bulk('HDEL', K.stalls, ran) end
end
if others > 0 then
  bulk('SREM', K.stalling, left)
  -- A job may have been in one of these before: a Node process can queue it again
  -- without taking it out.
  bulk('SREM', K.succeeded, left)
  bulk('SREM', K.failed, left)
  bulk('HDEL', K.reasons, left)
  bulk('HDEL', jobs, removed)
end
bulk('HSET', jobs, records, 2)
if others > 0 then
  bulk('SADD', K.succeeded, kept)
  bulk('SADD', K.failed, failed)
  bulk('HSET', K.reasons, reasons, 2)
end
