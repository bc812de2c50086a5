-- Put before every script whose calls have a name, so that a call whose reply
-- was lost can be repeated and is answered again instead of run again.
--
-- KEYS[1] calls
-- ARGV[1] the caller's lane, ARGV[2] the call's sequence number in it
--
-- `calls` holds, for each lane, "<sequence number> <time, ms> <answer>" of its
-- last call. The time lets the sweep drop callers long gone; a caller has it
-- renewed now and then, not in every call.

local call = redis.call

-- More than 14 digits would lose some in tostring.
local function digits(n)
  return string.format('%.0f', n)
end

-- The server's time in ms.
local read
local function now()
  if not read then
    local t = call('TIME')
    read = t[1] * 1000 + math.floor(t[2] / 1000)
  end
  return read
end

-- The answer of this call if it ran before; whether it is out of date.
local stamp
local function recall()
  local stored = call('HGET', KEYS[1], ARGV[1])
  if not stored then return nil, false end
  local seq, at, rest = string.match(stored, '^(%d+) (%d+) ()')
  if seq == ARGV[2] then return string.sub(stored, rest), false end
  stamp = at
  return nil, tonumber(seq) > tonumber(ARGV[2])
end

local function remember(answer, renew)
  if renew or not stamp then stamp = digits(now()) end
  call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. stamp .. ' ' .. answer)
end

-- Calls a command with any number of values, at most 1,000 at a time (Lua's
-- unpack is bounded). `step` keeps groups such as field and value together.
local function bulk(command, key, values, step)
  local count = #values
  if count > 0 and count <= 1000 then
    call(command, key, unpack(values))
    return
  end
  local most = 1000 - 1000 % (step or 1)
  for first = 1, count, most do
    call(command, key, unpack(values, first, math.min(first + most - 1, count)))
  end
end

local function stale()
  return redis.error_reply('STALE a later call of this lane has run')
end
