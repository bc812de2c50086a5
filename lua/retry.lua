-- Puts a job that failed for good back into waiting.
--
-- KEYS: calls failed waiting jobs reasons
-- ARGV: lane, sequence number, id
-- Returns 'retried', 'not failed' or, if it has no record, 'not found'.
-- Repeatable by its name.

local answer, late = recall()
if late then return stale end
if answer then return answer end

redis.call('LLEN', KEYS[3])
redis.call('HLEN', KEYS[5])

local id = ARGV[3]
if redis.call('HEXISTS', KEYS[4], id) == 0 then
  redis.call('SREM', KEYS[2], id)
  answer = 'not found'
elseif redis.call('SREM', KEYS[2], id) == 1 then
  redis.call('HDEL', KEYS[5], id)
  redis.call('LPUSH', KEYS[3], id)
  answer = 'retried'
else
  answer = 'not failed'
end
remember(answer)
return answer
