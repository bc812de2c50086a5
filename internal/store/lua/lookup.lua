-- Reads a job and whether it has finished, in one step.
--
-- Header: id
-- Returns {record, state, reason}: state is 'succeeded', 'failed' or ''; reason
-- says why a record that cannot be read failed. {} if there is no such job.
-- Reads only.

local record = redis.call('HGET', K.jobs, A.id)
if not record then return {} end
local state, reason = '', ''
if redis.call('SISMEMBER', K.succeeded, A.id) == 1 then
  state = 'succeeded'
elseif redis.call('SISMEMBER', K.failed, A.id) == 1 then
  state = 'failed'
  reason = redis.call('HGET', K.reasons, A.id) or ''
end
return { record, state, reason }
