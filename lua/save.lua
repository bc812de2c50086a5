-- Saves jobs, in the order given.
--
-- KEYS: calls id jobs waiting delayed earlierDelayed
-- ARGV: lane, sequence number, '1' to renew the lane's time, then for each job: id
--       ('' for the next automatic one), record, due time in Unix ms ('' for now)
-- Returns "=<id>" if all jobs were given automatic ids that follow each other,
-- from that one on; else one word for each job: the automatic id it was given,
-- '+' if it was saved under its own id, '-' if that id is taken.
-- Repeatable by its name.

local answer, late = recall()
if late then return stale() end
if answer then return answer end

local jobs = (#ARGV - 3) / 3
local ids, words, automatic, anyDue = {}, {}, {}, false
for i = 1, jobs do
  if ARGV[3 * i + 1] == '' then automatic[#automatic + 1] = i end
  if ARGV[3 * i + 3] ~= '' then anyDue = true end
end

-- A key of the wrong type fails here, before anything is written, and the counter
-- at INCRBY.
local own = #automatic < jobs
call('HLEN', KEYS[3])
call('LLEN', KEYS[4])
if anyDue then call('ZCARD', KEYS[5]) end

local last
if #automatic > 0 then last = call('INCRBY', KEYS[2], #automatic) end

-- Ids of the caller's first: an automatic one then steps aside.
if own then
  for i = 1, jobs do
    local id = ARGV[3 * i + 1]
    if id ~= '' then
      if call('HSETNX', KEYS[3], id, ARGV[3 * i + 2]) == 1 then
        ids[i], words[i] = id, '+'
      else
        words[i] = '-'
      end
    end
  end
end

local records, aside = {}, false
for first = 1, #automatic, 500 do
  local final = math.min(first + 499, #automatic)
  local wanted = {}
  for k = first, final do
    wanted[k - first + 1] = digits(last - #automatic + k)
  end
  local taken = call('HMGET', KEYS[3], unpack(wanted))
  for k = first, final do
    local i, id = automatic[k], wanted[k - first + 1]
    if taken[k - first + 1] then
      -- Somebody used a number as an id: go on to the next that is free.
      aside = true
      repeat
        id = digits(call('INCR', KEYS[2]))
      until call('HEXISTS', KEYS[3], id) == 0
    end
    records[#records + 1] = id
    records[#records + 1] = ARGV[3 * i + 2]
    ids[i], words[i] = id, id
  end
end

if not own and not anyDue then
  bulk('LPUSH', KEYS[4], ids)
  bulk('HSET', KEYS[3], records, 2)
else
  bulk('HSET', KEYS[3], records, 2)
  local waiting, delayed = {}, {}
  for i = 1, jobs do
    local at = ARGV[3 * i + 3]
    if ids[i] and at == '' then
      waiting[#waiting + 1] = ids[i]
    elseif ids[i] then
      delayed[#delayed + 1] = at
      delayed[#delayed + 1] = ids[i]
    end
  end
  bulk('LPUSH', KEYS[4], waiting)
  bulk('ZADD', KEYS[5], delayed, 2)
end

if own or aside or jobs == 0 then
  answer = table.concat(words, ' ')
else
  answer = '=' .. ids[1]
end
remember(answer, ARGV[3] == '1')

-- Last, for it may be denied, and workers look by themselves now and then.
if anyDue then
  local head = call('ZRANGE', KEYS[5], 0, 0)[1]
  for i = 1, jobs do
    if ids[i] == head and ARGV[3 * i + 3] ~= '' then
      redis.pcall('PUBLISH', KEYS[6], ARGV[3 * i + 3])
    end
  end
end
return answer
