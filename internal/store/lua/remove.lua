-- Removes a job, whatever state it is in.
--
-- Header: lane seq  the call's name, see call.lua
--         id
-- Returns 1 if there was anything to remove, else 0.
-- Repeatable by its name.

local answer, late = previousAnswer()
if late then return stale() end
if answer then return tonumber(answer) end

-- A key of the wrong type must fail before anything is written.
call('LLEN', K.waiting)
call('LLEN', K.active)
call('SISMEMBER', K.stalling, '')
call('HLEN', K.jobs)
call('ZCARD', K.delayed)
call('HLEN', K.owners)
call('HLEN', K.stalls)
call('HLEN', K.reasons)

local id = A.id
local found = call('SREM', K.succeeded, id) + call('SREM', K.failed, id) + call('ZREM', K.delayed, id)
if found == 0 then
  found = call('LREM', K.waiting, 0, id) + call('LREM', K.active, 0, id)
end
call('SREM', K.stalling, id)
found = found + call('HDEL', K.jobs, id)
call('HDEL', K.owners, id)
call('HDEL', K.stalls, id)
call('HDEL', K.reasons, id)

local result = math.min(found, 1)
remember(tostring(result), true)
return result
