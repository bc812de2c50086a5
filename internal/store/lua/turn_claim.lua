-- Section of turn.lua: claims jobs from the right end of `waiting`. An id without a
-- record is dropped. So is a second copy of an id that is active, which must not run
-- twice at once. Jobs that would make the reply too large are left for the next turn.
--
-- Leaves for the next section: reply, more, claimed (the ids).

local enough = 4 * 1024 * 1024 -- bytes of records
local reply, more, claimed = { '', '0', '' }, #coming > want and '1' or '0', {}
if arrived > 0 then
  local risks, aside
  if stalled > 0 then
    -- A job on its last chance fails if its worker is lost once more. Two of them never run
    -- in one worker. So the job that kills workers is the only one on its last chance there,
    -- and the others do not fail along with it.
    local taken = false
    local function lastChance(times)
      return times and limit >= 0 and tonumber(times) >= limit
    end
    risks, aside = {}, {}
    for i, times in ipairs(call('HMGET', K.stalls, unpack(ids, plain + 1, plain + arrived))) do
      risks[i] = lastChance(times)
      taken = taken or risks[i]
    end
    if taken then
      taken = false
      local counted = call('HGETALL', K.stalls)
      for i = 1, #counted, 2 do
        local owner = lastChance(counted[i + 1]) and call('HGET', owners, counted[i])
        if owner and string.match(owner, '^(.*)/') == token then taken = true end
      end
    end
    risks.taken = taken
  end
  local claims, seen, size, looked, n = {}, {}, 0, 0, 0
  for i = 1, arrived do
    if size > enough then
      more = '1'
      break
    end
    looked = i
    local id, record = ids[plain + i], stored[plain + i]
    -- An owner may be left from a run that a Node process took back, or be of a run that
    -- has ended just now: then the record is another.
    local running = seen[id]
    if not running and held[plain + i] then
      running = call('LPOS', active, id)
      record = omitRecords and recordSize(id) or not omitRecords and call('HGET', jobs, id)
    end
    if record and not running then
      if risks and risks[i] and risks.taken then
        aside[#aside + 1] = digits(now() + 1000)
        aside[#aside + 1] = id
      else
        if risks and risks[i] then risks.taken = true end
        seen[id], size = true, size + (omitRecords and record or #record)
        n = n + 1
        claimed[n] = id
        claims[2 * n - 1] = id
        claims[2 * n] = mine
        reply[2 * n + 2] = id
        reply[2 * n + 3] = omitRecords and '' or record
      end
    end
  end
  call('LTRIM', waiting, 0, -looked - 1)
  bulk('LPUSH', active, claimed)
  bulk('HSET', owners, claims, 2)
  if aside and #aside > 0 then
    bulk('ZADD', K.delayed, aside, 2)
    if not soonest then soonest = now() + 1000 end
  end
end
