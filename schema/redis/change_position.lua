-- Changes fields of a partition's position and bumps its epoch, which refuses every call of whoever
-- wrote the partition until now; or refuses and changes nothing.
--
-- KEYS  position
-- ARGV  1 expected epoch, "" for any; then names and values, "" to remove the field
-- Returns {1, new epoch, offset, fresh_at_ms}, or {0, stored epoch}, "" for what is not there.

local call = redis.call
local epoch = call('HGET', KEYS[1], 'epoch')
if not epoch or (ARGV[1] ~= '' and ARGV[1] ~= epoch) then
    return {0, epoch or ''}
end
for arg = 2, #ARGV, 2 do
    if ARGV[arg + 1] == '' then
        call('HDEL', KEYS[1], ARGV[arg])
    else
        call('HSET', KEYS[1], ARGV[arg], ARGV[arg + 1])
    end
end
call('HINCRBY', KEYS[1], 'epoch', 1)
local after = call('HMGET', KEYS[1], 'epoch', 'offset', 'fresh_at_ms')
return {1, after[1], after[2] or '', after[3] or ''}
