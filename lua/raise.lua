-- Moves delayed jobs that are due to waiting, in order of their due times.
--
-- KEYS: delayed waiting
-- ARGV: how many at most
-- Returns {how many were moved, ms until the next is due (negative: none is
-- delayed), server's time in Unix ms, how many are waiting now}.
-- Safe to repeat.

redis.call('LLEN', KEYS[2])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[1])
if #due > 0 then
  redis.call('ZREM', KEYS[1], unpack(due))
  redis.call('LPUSH', KEYS[2], unpack(due))
end
local head = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local wait = -1
if head[2] then wait = math.max(0, math.ceil(tonumber(head[2]) - now)) end
return { #due, wait, now, redis.call('LLEN', KEYS[2]) }
