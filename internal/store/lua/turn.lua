-- One turn of a worker: outcomes of runs in, jobs to run out. Finishing a job and
-- claiming the next are one step.
-- Sections, in order: redis, call, claimed, turn (reads everything), turn_finish,
-- turn_claim, turn_reply.
--
-- Header: lane seq     the call's name, see call.lua
--         token        the worker
--         lease        length of its lease in ms; '' leaves the lease as it is, 0 ends it
--         want         how many jobs to claim; if negative, that many, but only if the
--                      worker has made turns before
--         maxStalls    how often a job may be taken back from a lost worker; negative: no
--                      limit
--         publish      '1' to publish plain successes
--         omitRecords  '1' to leave out the records of the claimed jobs
--         groups       how many groups of plain successes follow
-- A plain success changes nothing in its record but the status and the result. The
-- arguments behind the header:
--   for each group of plain successes:
--     the claim they were run under, where `"status":` is in the records (from 1), how
--     many they are
--   for each plain success, group after group:
--     id, its result ('' for none)
--   for each other outcome:
--     id, the claim, its kind, payload, delay, event to publish ('' for none)
--   kind:                            payload:         delay:
--     succeeded  kept                its new record
--     failed     kept                its new record
--     removed    record deleted
--     retrying   to be run again     its new record   ms; '0' for at once
--     unreadable failed, the record  the reason
--                stays as it is
--     returned   handed back, to be                   ms; '0' for the front of
--                run again                            waiting
-- Returns {verdicts, '1' if more are waiting, why events could not be published or '',
-- id, record, id, record, ...}.
-- Verdicts has a letter for each outcome: y recorded; l lost, another worker has or had
-- the job; g gone, the job was removed; c changed, a plain success whose record is not
-- as it was, to be sent with its whole record. All but y change nothing of the job.
-- The claim of the returned jobs is this call's sequence number.
-- Repeatable by its name.
--
-- Leaves for the next sections: ids (plain successes, then ids to claim, then other
-- outcomes), stored and held (their records and owners), plain, arrived and others (how
-- many of each), coming, stalled, length, mine.

local find, sub = string.find, string.sub
local jobs, waiting, active, owners = K.jobs, K.waiting, K.active, K.owners
local token, lease, want, limit = A.token, A.lease, tonumber(A.want), tonumber(A.maxStalls)
local publishing, omitRecords, groups = A.publish == '1', A.omitRecords == '1', tonumber(A.groups)
local firstGroup, groupWidth, plainWidth, width = A.rest, 3, 2, 6
local firstPlain, plain = firstGroup + groups * groupWidth, 0
for g = firstGroup, firstPlain - 1, groupWidth do plain = plain + tonumber(ARGV[g + 2]) end
local first = firstPlain + plain * plainWidth
local others = (#ARGV - first + 1) / width
local mine = token .. '/' .. A.seq

local answer, late = previousAnswer()
if late then return stale() end
if answer then
  -- A repeated call gives the jobs again that are still held under its claim. It phones in
  -- for them: the worker, which did not know of them, could not.
  local verdicts, more = string.match(answer, '^(%a*) (%d)')
  local reply, ids, held = { verdicts, more, '' }, claimedIDs(answer), {}
  -- A Node process may have taken a job back, and leaves its owner. Jobs of one claim lie
  -- side by side in `active`.
  local near = {}
  local function isActive(id)
    if near[id] == nil then
      local at = call('LPOS', active, id)
      near[id] = at and true or false
      for _, other in ipairs(at and call('LRANGE', active, math.max(0, at - #ids), at + #ids) or {}) do
        near[other] = true
      end
    end
    return near[id]
  end
  for i, owner in ipairs(#ids > 0 and call('HMGET', owners, unpack(ids)) or {}) do
    local record = owner == mine and isActive(ids[i]) and call('HGET', jobs, ids[i])
    if record then
      held[#held + 1] = ids[i]
      reply[#reply + 1] = ids[i]
      reply[#reply + 1] = omitRecords and '' or record
    end
  end
  bulk('SREM', K.stalling, held)
  return reply
end

-- A turn that waited behind a blocking command may find the queue destroyed and made
-- anew. Its worker may have gone long ago then, and must not get jobs.
if want < 0 then
  if call('HEXISTS', K.calls, token .. ':turn0') == 0 then return { '', '1', '' } end
  want = -want
end

-- A key of the wrong type must fail before anything is written, so everything is read
-- first. Two are not: `succeeded`, whose error is dealt with where it comes, and
-- `stalling`, where it does no harm.
local ids = {}
for i = 1, plain do ids[i] = ARGV[firstPlain + (i - 1) * plainWidth] end
-- One id more than wanted tells whether more are waiting.
local coming = want > 0 and call('LRANGE', waiting, -want - 1, -1) or {}
local arrived = math.min(want, #coming)
for i = 1, arrived do ids[plain + i] = coming[#coming + 1 - i] end
-- recordSize returns the length of a record, or false if there is none, without reading
-- it: to bring a large record into Lua costs more than all else.
local function recordSize(id)
  local n = call('HSTRLEN', jobs, id)
  return (n > 0 or call('HEXISTS', jobs, id) == 1) and n
end
local stored = {}
if omitRecords then
  if plain > 0 then stored = call('HMGET', jobs, unpack(ids, 1, plain)) end
  for i = plain + 1, plain + arrived do stored[i] = recordSize(ids[i]) end
elseif plain + arrived > 0 then
  stored = call('HMGET', jobs, unpack(ids))
end
for i = 1, others do ids[plain + arrived + i] = ARGV[first + (i - 1) * width] end

local held, length, stalled = nil, 0, 0
if #ids > 0 then
  held = call('HMGET', owners, unpack(ids))
  length = call('LLEN', active)
  stalled = call('HLEN', K.stalls)
end
if others > 0 then
  call('HLEN', jobs)
  call('LLEN', waiting)
  call('SCARD', K.stalling)
  call('SCARD', K.succeeded)
  call('SCARD', K.failed)
  call('HLEN', K.reasons)
end
if others > 0 or stalled > 0 then call('ZCARD', K.delayed) end
if lease ~= '' then call('ZCARD', K.workers) end
