-- The name of a call. It lets a caller whose reply was lost repeat the call: the
-- script then answers again instead of running again.
--
-- Header: lane  the caller's lane
--         seq   the call's sequence number in its lane
--
-- `calls` holds, for each lane, "<sequence number> <time, ms> <answer>" of its last
-- call. The time lets the sweep drop callers long gone. A caller has it renewed now
-- and then, not in every call.

-- previousAnswer returns the answer of this call if it ran before, and whether a later
-- call of its lane has run.
local lastRenewed
local function previousAnswer()
  local stored = call('HGET', K.calls, A.lane)
  if not stored then return nil, false end
  local seq, at, rest = string.match(stored, '^(%d+) (%d+) ()')
  if seq == A.seq then return string.sub(stored, rest), false end
  lastRenewed = at
  return nil, tonumber(seq) > tonumber(A.seq)
end

local function remember(answer, renew)
  if renew or not lastRenewed then lastRenewed = digits(now()) end
  call('HSET', K.calls, A.lane, A.seq .. ' ' .. lastRenewed .. ' ' .. answer)
end

local function stale()
  return redis.error_reply('STALE a later call of this lane has run')
end
