-- Renews a worker's lease and phones in for its jobs.
--
-- KEYS: workers owners stalling
-- ARGV: worker's token, length of its lease in ms, then for each job: id, the
--       claim it is run under
-- Returns the ids that are no longer this worker's.
-- Idempotent.

-- The SREM comes first: a server that is out of memory lets a script go on that
-- began with a command that frees some.
local owned, lost = { '' }, {}
for at = 3, #ARGV, 1000 do
  local ids = {}
  for i = at, math.min(at + 999, #ARGV), 2 do ids[#ids + 1] = ARGV[i] end
  local held = redis.call('HMGET', KEYS[2], unpack(ids))
  for i, id in ipairs(ids) do
    if held[i] == ARGV[1] .. '/' .. ARGV[at + 2 * i - 1] then
      owned[#owned + 1] = id
    else
      lost[#lost + 1] = id
    end
  end
end
for from = 1, #owned, 1000 do
  redis.call('SREM', KEYS[3], unpack(owned, from, math.min(from + 999, #owned)))
end
local t = redis.call('TIME')
local ends = t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[2])
redis.call('ZADD', KEYS[1], string.format('%.0f', ends), ARGV[1])
return lost
