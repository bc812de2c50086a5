-- Renews a worker's lease and phones in for its jobs.
--
-- Header: token  the worker
--         lease  length of its lease in ms
-- The arguments behind the header, for each job: id, the claim it is run under
-- Returns the ids that are no longer this worker's.
-- Idempotent.

local owned, lost = { '' }, {}
for at = A.rest, #ARGV, 1000 do
  local ids = {}
  for i = at, math.min(at + 999, #ARGV), 2 do ids[#ids + 1] = ARGV[i] end
  local held = call('HMGET', K.owners, unpack(ids))
  for i, id in ipairs(ids) do
    if held[i] == A.token .. '/' .. ARGV[at + 2 * i - 1] then
      owned[#owned + 1] = id
    else
      lost[#lost + 1] = id
    end
  end
end
-- The SREM comes before the ZADD: a server that is out of memory lets a script go on that
-- began with a command that frees some.
bulk('SREM', K.stalling, owned)
call('ZADD', K.workers, digits(now() + tonumber(A.lease)), A.token)
return lost
