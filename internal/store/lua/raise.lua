-- Moves delayed jobs that are due to waiting, in order of their due times.
--
-- Header: most  how many to move at most
-- Returns {how many were moved, ms until the next is due (negative: none is
-- delayed), server's time in Unix ms, how many are waiting now}.
-- Safe to repeat.

call('LLEN', K.waiting) -- a key of the wrong type must fail before anything is written

local due = call('ZRANGEBYSCORE', K.delayed, '-inf', digits(now()), 'LIMIT', 0, A.most)
if #due > 0 then
  call('ZREM', K.delayed, unpack(due))
  call('LPUSH', K.waiting, unpack(due))
end
local head = call('ZRANGE', K.delayed, 0, 0, 'WITHSCORES')
local wait = -1
if head[2] then wait = math.max(0, math.ceil(tonumber(head[2]) - now())) end
return { #due, wait, now(), call('LLEN', K.waiting) }
