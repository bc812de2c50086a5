-- Removes a job, whatever state it is in.
--
-- KEYS: calls succeeded failed waiting active stalling jobs delayed owners stalls
--       reasons
-- ARGV: lane, sequence number, id
-- Returns 1 if there was anything to remove, else 0.
-- Repeatable by its name.

local answer, late = recall()
if late then return stale end
if answer then return tonumber(answer) end

redis.call('LLEN', KEYS[4])
redis.call('LLEN', KEYS[5])
redis.call('SISMEMBER', KEYS[6], '')
redis.call('HLEN', KEYS[7])
redis.call('ZCARD', KEYS[8])
redis.call('HLEN', KEYS[9])
redis.call('HLEN', KEYS[10])
redis.call('HLEN', KEYS[11])

local id = ARGV[3]
local found = redis.call('SREM', KEYS[2], id) + redis.call('SREM', KEYS[3], id) + redis.call('ZREM', KEYS[8], id)
if found == 0 then
  found = redis.call('LREM', KEYS[4], 0, id) + redis.call('LREM', KEYS[5], 0, id)
end
redis.call('SREM', KEYS[6], id)
found = found + redis.call('HDEL', KEYS[7], id)
redis.call('HDEL', KEYS[9], id)
redis.call('HDEL', KEYS[10], id)
redis.call('HDEL', KEYS[11], id)

local result = math.min(found, 1)
remember(tostring(result))
return result
