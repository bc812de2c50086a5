-- Reads a job and whether it has finished, in one step.
--
-- KEYS: jobs succeeded failed reasons
-- ARGV: id
-- Returns {record, state, reason}: state is 'succeeded', 'failed' or ''; reason
-- says why a record that cannot be read failed. {} if there is no such job.
-- Reads only.

local record = redis.call('HGET', KEYS[1], ARGV[1])
if not record then return {} end
local state, reason = '', ''
if redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 1 then
  state = 'succeeded'
elseif redis.call('SISMEMBER', KEYS[3], ARGV[1]) == 1 then
  state = 'failed'
  reason = redis.call('HGET', KEYS[4], ARGV[1]) or ''
end
return { record, state, reason }
