-- What blocking commands have taken from `waiting`. Ids in `taken` are nobody's, and count
-- as waiting: a claim takes them from there, or they go back.

-- giveBack moves all that is in `taken` to the right end of `waiting`, where it came from.
-- It reports whether there was anything. The DEL comes first: a server that is out of
-- memory lets a script go on that began with a command that frees some.
local function giveBack()
  local ids = call('LRANGE', K.taken, 0, -1)
  if #ids == 0 then return false end
  call('LLEN', K.waiting) -- a key of the wrong type must fail before anything is written
  call('DEL', K.taken)
  bulk('RPUSH', K.waiting, ids)
  return true
end
