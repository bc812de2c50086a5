-- Counts the jobs in each state, in one step.
--
-- KEYS: waiting active delayed succeeded failed id
-- Returns {waiting, active, delayed, succeeded, failed, newest automatic id}.
-- Reads only.

return {
  redis.call('LLEN', KEYS[1]),
  redis.call('LLEN', KEYS[2]),
  redis.call('ZCARD', KEYS[3]),
  redis.call('SCARD', KEYS[4]),
  redis.call('SCARD', KEYS[5]),
  redis.call('GET', KEYS[6]) or '0',
}
