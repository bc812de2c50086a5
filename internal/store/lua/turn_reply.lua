-- Section of turn.lua: puts back what is to be run again, renews the lease, and answers.

if others > 0 then
  bulk('LPUSH', waiting, back)
  bulk('RPUSH', waiting, front)
  bulk('ZADD', K.delayed, delayed, 2)
  if #back + #front > 0 then more = '1' end
end
reply[1], reply[2] = table.concat(verdicts), more

if lease == '0' then
  call('ZREM', K.workers, token)
elseif lease ~= '' then
  call('ZADD', K.workers, digits(now() + tonumber(lease)), token)
end
remember(answerOf(reply[1], more, claimed), lease ~= '')

-- Events come last, because an ACL may deny PUBLISH, and the job must still finish.
local function publish(channel, message)
  local sent = redis.pcall('PUBLISH', channel, message)
  if type(sent) == 'table' and sent.err then reply[3] = sent.err end
end
for _, event in ipairs(events) do publish(K.events, event) end
if soonest then publish(K.earlierDelayed, digits(soonest)) end
return reply
