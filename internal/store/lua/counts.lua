-- Counts the jobs in each state, in one step.
--
-- Returns {waiting, active, delayed, succeeded, failed, newest automatic id}.
-- Reads only.

return {
  redis.call('LLEN', K.waiting),
  redis.call('LLEN', K.active),
  redis.call('ZCARD', K.delayed),
  redis.call('SCARD', K.succeeded),
  redis.call('SCARD', K.failed),
  redis.call('GET', K.id) or '0',
}
