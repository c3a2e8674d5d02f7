-- Removes a partition's position and totals that were created in vain: only as they were created, since
-- somebody else may have come to use the same generation.
--
-- KEYS  position, totals
-- Returns 1 where they were removed, else 0.

local position = redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'filled')
if position[1] ~= '1' or position[2] ~= '0' or position[3] then
    return 0
end
redis.call('DEL', KEYS[1], KEYS[2])
return 1
