-- Removes a job, whatever state it is in.
--
-- KEYS: calls succeeded failed waiting active stalling jobs delayed owners stalls
--       reasons
-- ARGV: lane, sequence number, id
-- Returns 1 if there was anything to remove, else 0.
-- Repeatable by its name.

local answer, late = recall()
if late then return stale() end
if answer then return tonumber(answer) end

call('LLEN', KEYS[4])
call('LLEN', KEYS[5])
call('SISMEMBER', KEYS[6], '')
call('HLEN', KEYS[7])
call('ZCARD', KEYS[8])
call('HLEN', KEYS[9])
call('HLEN', KEYS[10])
call('HLEN', KEYS[11])

local id = ARGV[3]
local found = call('SREM', KEYS[2], id) + call('SREM', KEYS[3], id) + call('ZREM', KEYS[8], id)
if found == 0 then
  found = call('LREM', KEYS[4], 0, id) + call('LREM', KEYS[5], 0, id)
end
call('SREM', KEYS[6], id)
found = found + call('HDEL', KEYS[7], id)
call('HDEL', KEYS[9], id)
call('HDEL', KEYS[10], id)
call('HDEL', KEYS[11], id)

local result = math.min(found, 1)
remember(tostring(result), true)
return result
