-- The answer of a turn, as `calls` keeps it: "<verdicts> <1 if more are waiting>" and then,
-- for each job that the turn claimed, " <length of its id>:<id>". So a turn that is
-- answered again finds its jobs without a look at all that are active.

local function answerOf(verdicts, more, ids)
  local words = { verdicts .. ' ' .. more }
  for i, id in ipairs(ids) do words[i + 1] = #id .. ':' .. id end
  return table.concat(words, ' ')
end

-- claimedIDs returns the ids in a turn's answer.
local function claimedIDs(answer)
  local ids, at = {}, string.match(answer, '^%a* %d()')
  while at and at < #answer do
    local length, begin = string.match(answer, '^ (%d+):()', at)
    ids[#ids + 1] = string.sub(answer, begin, begin + length - 1)
    at = begin + length
  end
  return ids
end
