-- Put before every script whose calls have a name, so that a call whose reply
-- was lost can be repeated and is answered again instead of run again.
--
-- KEYS[1] calls
-- ARGV[1] the caller's lane, ARGV[2] the call's sequence number in it
--
-- `calls` holds, for each lane, "<sequence number> <time, ms> <answer>" of its
-- last call. The time lets the sweep drop callers long gone.

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- More than 14 digits would lose some in tostring.
local function digits(n)
  return string.format('%.0f', n)
end

local now = clock()

-- The answer of this call if it ran before; whether it is out of date.
local function recall()
  local stored = redis.call('HGET', KEYS[1], ARGV[1])
  if not stored then return nil, false end
  local seq, answer = string.match(stored, '^(%d+) %d+ (.*)$')
  seq = tonumber(seq)
  if seq == tonumber(ARGV[2]) then return answer, false end
  return nil, seq > tonumber(ARGV[2])
end

local function remember(answer)
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. digits(now) .. ' ' .. answer)
end

-- Calls a command with any number of values, at most 1,000 at a time (Lua's
-- unpack is bounded). `step` keeps groups such as field and value together.
local function bulk(command, key, values, step)
  local most = 1000 - 1000 % (step or 1)
  for first = 1, #values, most do
    redis.call(command, key, unpack(values, first, math.min(first + most - 1, #values)))
  end
end

local stale = redis.error_reply('STALE a later call of this lane has run')
