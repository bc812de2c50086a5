-- Helpers of every script that writes.

local call = redis.call

-- digits writes a number in full. tostring loses digits from the 15th on.
local function digits(n)
  return string.format('%.0f', n)
end

-- now returns the server's time in ms, the same throughout the script.
local clock
local function now()
  if not clock then
    local t = call('TIME')
    clock = t[1] * 1000 + math.floor(t[2] / 1000)
  end
  return clock
end

-- bulk calls a command with any number of values, at most 1,000 at a time, because
-- Lua's unpack is bounded. `step` keeps groups together, such as field and value.
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
