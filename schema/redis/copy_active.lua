-- Adds the users that were active on a day in one generation to those of another one.
--
-- KEYS  the day's key to copy from, the one to copy to
-- Returns 1 where there was something to copy.

local call = redis.call
local left = call('PTTL', KEYS[1])
if left == -2 then
    return 0
end
call('PFMERGE', KEYS[2], KEYS[1])
if left > call('PTTL', KEYS[2]) then
    call('PEXPIRE', KEYS[2], left)
end
return 1
