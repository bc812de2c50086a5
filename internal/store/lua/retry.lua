-- Puts a job that failed for good back into waiting.
--
-- Header: lane seq  the call's name, see call.lua
--         id
-- Returns 'retried', 'not failed' or, if it has no record, 'not found'.
-- Repeatable by its name.

local answer, late = previousAnswer()
if late then return stale() end
if answer then return answer end

call('LLEN', K.waiting)
call('HLEN', K.reasons)

local id = A.id
if call('HEXISTS', K.jobs, id) == 0 then
  call('SREM', K.failed, id)
  answer = 'not found'
elseif call('SREM', K.failed, id) == 1 then
  call('HDEL', K.reasons, id)
  call('LPUSH', K.waiting, id)
  answer = 'retried'
else
  answer = 'not failed'
end
remember(answer, true)
return answer
