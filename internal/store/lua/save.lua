-- Saves jobs, in the order given.
--
-- Header: lane seq    the call's name, see call.lua
--         renew       '1' to renew the lane's time
--         plain       '1' if all ids are automatic and nothing is delayed
--         maxWaiting  how many jobs may be waiting; '' for any number
-- The arguments behind the header:
--   if plain, for each job: record
--   if not, for each job: id ('' for the next automatic one), record, due time in Unix
--   ms ('' for now)
-- Returns "=<id>" if all jobs were given automatic ids that follow each other, from that
-- id on. Otherwise it returns a word for each job: the automatic id it was given, '+' if
-- it was saved under its own id, '-' if that id is taken, '!' if too many jobs are
-- waiting.
-- Repeatable by its name.

local answer, late = previousAnswer()
if late then return stale() end
if answer then
  -- A caller that waits for replicas needs a write to wait for.
  if A.renew == '1' then redis.pcall('HSET', K.calls, A.lane, call('HGET', K.calls, A.lane)) end
  return answer
end

-- The jobs as arrays. `records` is nil in the plain form; `own` and `due` have the ids
-- and due times that were given.
local first = A.rest
local count, records, own, due = 0, nil, {}, {}
local some, anyDue = false, false
if A.plain == '1' then
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

-- A key of the wrong type must fail before anything is written. In the plain form
-- INCRBY, HMGET and LPUSH see to that, because they come before the records. A number
-- that is not used does no harm.
if records then
  call('HLEN', K.jobs)
  call('LLEN', K.waiting)
  if anyDue then call('ZCARD', K.delayed) end
end

-- Which jobs find no room in waiting: the last of those that go there. A job whose id is
-- taken needs no room.
local full, isFull = {}, false
if A.maxWaiting ~= '' then
  local room, seen = tonumber(A.maxWaiting) - call('LLEN', K.waiting), {}
  for i = 1, count do
    local id = own[i]
    if not due[i] and not (id and (seen[id] or call('HEXISTS', K.jobs, id) == 1)) then
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
local before = numbered > 0 and call('INCRBY', K.id, numbered) - numbered

-- The caller's own ids come first. An automatic id then steps aside.
if some then
  for i = 1, count do
    if own[i] and not full[i] then
      if call('HSETNX', K.jobs, own[i], records[i]) == 1 then
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
  local taken = call('HMGET', K.jobs, unpack(wanted))
  for j = 1, #wanted do
    local k, id = from + j - 1, wanted[j]
    if taken[j] then
      -- Somebody used a number as an id: take the next number that is free.
      aside = true
      repeat
        id = digits(call('INCR', K.id))
      until call('HEXISTS', K.jobs, id) == 0
    end
    local i = places and places[k] or k
    ids[i] = id
    fields[2 * k - 1], fields[2 * k] = id, record(i)
  end
end

if not records then
  bulk('LPUSH', K.waiting, ids)
  bulk('HSET', K.jobs, fields, 2)
else
  bulk('HSET', K.jobs, fields, 2)
  local waiting, delayed = {}, {}
  for i = 1, count do
    if ids[i] and not due[i] then
      waiting[#waiting + 1] = ids[i]
    elseif ids[i] then
      delayed[#delayed + 1] = due[i]
      delayed[#delayed + 1] = ids[i]
    end
  end
  bulk('LPUSH', K.waiting, waiting)
  bulk('ZADD', K.delayed, delayed, 2)
end

if some or aside or isFull or count == 0 then
  for i = 1, count do words[i] = words[i] or ids[i] or '!' end
  answer = table.concat(words, ' ')
else
  answer = '=' .. ids[1]
end
remember(answer, A.renew == '1')

-- This comes last, because an ACL may deny PUBLISH. Workers look by themselves every 5 s.
if anyDue then
  local head = call('ZRANGE', K.delayed, 0, 0)[1]
  for i = 1, count do
    if due[i] and ids[i] == head then
      redis.pcall('PUBLISH', K.earlierDelayed, due[i])
    end
  end
end
return answer
