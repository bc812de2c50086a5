-- Phones in for all jobs that a worker may own, and renews its lease.
--
-- The worker may own jobs that it does not know of yet: those of claims whose replies it
-- has not heard. It names the calls, and their answers in `calls` name the jobs.
--
-- Header: token    the worker
--         lease    length of its lease in ms
--         unheard  how many calls follow whose replies it has not heard
-- The arguments behind the header:
--   for each such call: its lane, its sequence number
--   for each job: id, the claim it is run under
-- Returns, of the jobs that are no longer this worker's: id, claim, id, claim, ...
-- Idempotent.

local first = A.rest + 2 * tonumber(A.unheard)
local owned, lost = { '' }, {}
for at = first, #ARGV, 1000 do
  local ids = {}
  for i = at, math.min(at + 999, #ARGV), 2 do ids[#ids + 1] = ARGV[i] end
  local held = call('HMGET', K.owners, unpack(ids))
  for i, id in ipairs(ids) do
    if held[i] == A.token .. '/' .. ARGV[at + 2 * i - 1] then
      owned[#owned + 1] = id
    else
      lost[#lost + 1] = id
      lost[#lost + 1] = ARGV[at + 2 * i - 1]
    end
  end
end
local lanes = {}
for at = A.rest, first - 1, 2 do lanes[#lanes + 1] = ARGV[at] end
for n, stored in ipairs(#lanes > 0 and call('HMGET', K.calls, unpack(lanes)) or {}) do
  local seq, rest = string.match(stored or '', '^(%d+) %d+ (.*)$')
  if seq == ARGV[A.rest + 2 * n - 1] then
    local ids = claimedIDs(rest)
    for i, owner in ipairs(#ids > 0 and call('HMGET', K.owners, unpack(ids)) or {}) do
      if owner == A.token .. '/' .. seq then owned[#owned + 1] = ids[i] end
    end
  end
end

-- The SREM comes before the ZADD: a server that is out of memory lets a script go on that
-- began with a command that frees some.
bulk('SREM', K.stalling, owned)
call('ZADD', K.workers, digits(now() + tonumber(A.lease)), A.token)
return lost
