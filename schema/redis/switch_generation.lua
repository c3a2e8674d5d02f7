-- Makes another generation the live one, if the live one is still the expected one, is sealed, and
-- the caller holds the lease. The new one is sealed in its turn for a while.
--
-- KEYS  generation, lease, seal, others (all of one slot)
-- ARGV  1 token of the lease  2 expected live generation, "0": none  3 the one to be live
--       4 what the expected one is from now on  5 ms for which the new one is sealed, "0": not at all
-- Returns {1}, or {0, why}, or {2, why} where another attempt may succeed.

local call = redis.call
if call('GET', KEYS[2]) ~= ARGV[1] then
    return {0, 'the lease was lost'}
end
local live = call('GET', KEYS[1]) or '0'
if live ~= ARGV[2] then
    return {0, 'the live generation is ' .. live .. ' by now'}
end
if live ~= '0' then
    if call('GET', KEYS[3]) ~= live then
        return {2, 'the seal has expired'}
    end
    call('HSET', KEYS[4], live, ARGV[4])
end
call('SET', KEYS[1], ARGV[3])
call('HDEL', KEYS[4], ARGV[3])
if ARGV[5] == '0' then
    call('DEL', KEYS[3])
else
    call('SET', KEYS[3], ARGV[3], 'PX', ARGV[5])
end
return {1}
