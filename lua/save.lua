-- Saves jobs, in the order given.
--
-- KEYS: calls id jobs waiting delayed earlierDelayed
-- ARGV: lane, sequence number, then for each job: id ('' for the next automatic
--       one), record, due time in Unix ms ('' for now)
-- Returns one word for each job: the automatic id it was given, '+' if it was
-- saved under its own id, '-' if that id is taken.
-- Repeatable by its name.

local answer, late = recall()
if late then return stale end
if answer then return answer end

-- A key of the wrong type fails here, before anything is written; so does the
-- counter at INCRBY, and `jobs` at its first use.
redis.call('LLEN', KEYS[4])
redis.call('ZCARD', KEYS[5])

local jobs = (#ARGV - 2) / 3
local ids, words, automatic = {}, {}, {}
for i = 1, jobs do
  if ARGV[3 * i] == '' then automatic[#automatic + 1] = i end
end

local last
if #automatic > 0 then
  redis.call('HLEN', KEYS[3])
  last = redis.call('INCRBY', KEYS[2], #automatic)
end

-- Ids of the caller's first: an automatic one then steps aside.
for i = 1, jobs do
  local id = ARGV[3 * i]
  if id ~= '' then
    if redis.call('HSETNX', KEYS[3], id, ARGV[3 * i + 1]) == 1 then
      ids[i], words[i] = id, '+'
    else
      words[i] = '-'
    end
  end
end

for first = 1, #automatic, 500 do
  local final = math.min(first + 499, #automatic)
  local wanted = {}
  for k = first, final do
    wanted[#wanted + 1] = digits(last - #automatic + k)
  end
  local taken = redis.call('HMGET', KEYS[3], unpack(wanted))
  local pairs_ = {}
  for k = first, final do
    local i, id = automatic[k], wanted[k - first + 1]
    if taken[k - first + 1] then
      -- Somebody used a number as an id: go on to the next that is free.
      repeat
        id = digits(redis.call('INCR', KEYS[2]))
      until redis.call('HSETNX', KEYS[3], id, ARGV[3 * i + 1]) == 1
    else
      pairs_[#pairs_ + 1] = id
      pairs_[#pairs_ + 1] = ARGV[3 * i + 1]
    end
    ids[i], words[i] = id, id
  end
  bulk('HSET', KEYS[3], pairs_, 2)
end

local waiting, delayed, due = {}, {}, {}
for i = 1, jobs do
  local at = ARGV[3 * i + 2]
  if ids[i] and at == '' then
    waiting[#waiting + 1] = ids[i]
  elseif ids[i] then
    delayed[#delayed + 1] = at
    delayed[#delayed + 1] = ids[i]
    due[ids[i]] = at
  end
end
bulk('LPUSH', KEYS[4], waiting)
bulk('ZADD', KEYS[5], delayed, 2)

answer = table.concat(words, ' ')
remember(answer)

-- Last, for it may be denied, and workers look by themselves now and then.
if #delayed > 0 then
  local head = redis.call('ZRANGE', KEYS[5], 0, 0)[1]
  if due[head] then redis.pcall('PUBLISH', KEYS[6], due[head]) end
end
return answer
