-- Saves jobs, in the order given.
--
-- KEYS: calls id jobs waiting delayed earlierDelayed
-- ARGV: lane, sequence number, '1' to renew the lane's time, '1' if all ids are
--       automatic and nothing is delayed, how many jobs may be waiting ('' for any
--       number)
--   then, if so, for each job: record
--   and if not, for each job: id ('' for the next automatic one), record, due time in
--   Unix ms ('' for now)
-- Returns "=<id>" if all jobs were given automatic ids that follow each other,
-- from that one on; else one word for each job: the automatic id it was given,
-- '+' if it was saved under its own id, '-' if that id is taken, '!' if there are too
-- many jobs waiting.
-- Repeatable by its name.

local answer, late = recall()
if late then return stale() end
if answer then
  -- A caller that waits for replicas needs a write to wait for.
  if ARGV[3] == '1' then redis.pcall('HSET', KEYS[1], ARGV[1], call('HGET', KEYS[1], ARGV[1])) end
  return answer
end

-- What was asked, as arrays: the records; and for jobs of the second form, the ids
-- and due times that are given.
local first = 6
local count, records, own, due = 0, nil, {}, {}
local some, anyDue = false, false
if ARGV[4] == '1' then
  count = #ARGV - first + 1
else
  records = {}
  for at = first, #ARGV, 3 do
    count = count + 1
    records[count] = ARGV[at + 1]
    if ARGV[at] ~= '' then own[count], some = ARGV[at], true end
    if ARGV[at + 2] ~= '' then due[count], anyDue = ARGV[at + 2], true end
  end
end
local function record(i)
  return records and records[i] or ARGV[first + i - 1]
end

-- A key of the wrong type must fail before anything is written. In the first form
-- INCRBY, HMGET and LPUSH see to that: they come before the records, and a number that
-- is not used does no harm.
if records then
  call('HLEN', KEYS[3])
  call('LLEN', KEYS[4])
  if anyDue then call('ZCARD', KEYS[5]) end
end

-- Which jobs have no room in waiting: the last of those that are for it. One whose id
-- is taken needs none.
local full, isFull = {}, false
if ARGV[5] ~= '' then
  local room, seen = tonumber(ARGV[5]) - call('LLEN', KEYS[4]), {}
  for i = 1, count do
    local id = own[i]
    if not due[i] and not (id and (seen[id] or call('HEXISTS', KEYS[3], id) == 1)) then
      room = room - 1
      if room < 0 then full[i], isFull = true, true end
    end
    if id and not full[i] then seen[id] = true end
  end
end

-- Which jobs get numbers, if not all.
local ids, words, places, numbered = {}, {}, nil, count
if some or isFull then
  places, numbered = {}, 0
  for i = 1, count do
    if not own[i] and not full[i] then
      numbered = numbered + 1
      places[numbered] = i
    end
  end
end
local before = numbered > 0 and call('INCRBY', KEYS[2], numbered) - numbered

-- Ids of the caller's first: an automatic one then steps aside.
if some then
  for i = 1, count do
    if own[i] and not full[i] then
      if call('HSETNX', KEYS[3], own[i], records[i]) == 1 then
        ids[i], words[i] = own[i], '+'
      else
        words[i] = '-'
      end
    end
  end
end

local fields, aside = {}, false
for from = 1, numbered, 500 do
  local wanted = {}
  for k = from, math.min(from + 499, numbered) do wanted[k - from + 1] = digits(before + k) end
  local taken = call('HMGET', KEYS[3], unpack(wanted))
  for j = 1, #wanted do
    local k, id = from + j - 1, wanted[j]
    if taken[j] then
      -- Somebody used a number as an id: go on to the next that is free.
      aside = true
      repeat
        id = digits(call('INCR', KEYS[2]))
      until call('HEXISTS', KEYS[3], id) == 0
    end
    local i = places and places[k] or k
    ids[i] = id
    fields[2 * k - 1], fields[2 * k] = id, record(i)
  end
end

if not records then
  bulk('LPUSH', KEYS[4], ids)
  bulk('HSET', KEYS[3], fields, 2)
else
  bulk('HSET', KEYS[3], fields, 2)
  local waiting, delayed = {}, {}
  for i = 1, count do
    if ids[i] and not due[i] then
      waiting[#waiting + 1] = ids[i]
    elseif ids[i] then
      delayed[#delayed + 1] = due[i]
      delayed[#delayed + 1] = ids[i]
    end
  end
  bulk('LPUSH', KEYS[4], waiting)
  bulk('ZADD', KEYS[5], delayed, 2)
end

if some or aside or isFull or count == 0 then
  for i = 1, count do words[i] = words[i] or ids[i] or '!' end
  answer = table.concat(words, ' ')
else
  answer = '=' .. ids[1]
end
remember(answer, ARGV[3] == '1')

-- Last, for it may be denied, and workers look by themselves now and then.
if anyDue then
  local head = call('ZRANGE', KEYS[5], 0, 0)[1]
  for i = 1, count do
    if due[i] and ids[i] == head then
      redis.pcall('PUBLISH', KEYS[6], due[i])
    end
  end
end
return answer
