-- Puts a job that failed for good back into waiting.
--
-- KEYS: calls failed waiting jobs reasons
-- ARGV: lane, sequence number, id
-- Returns 'retried', 'not failed' or, if it has no record, 'not found'.
-- Repeatable by its name.

local answer, late = recall()
if late then return stale() end
if answer then return answer end

call('LLEN', KEYS[3])
call('HLEN', KEYS[5])

local id = ARGV[3]
if call('HEXISTS', KEYS[4], id) == 0 then
  call('SREM', KEYS[2], id)
  answer = 'not found'
elseif call('SREM', KEYS[2], id) == 1 then
  call('HDEL', KEYS[5], id)
  call('LPUSH', KEYS[3], id)
  answer = 'retried'
else
  answer = 'not failed'
end
remember(answer, true)
return answer
