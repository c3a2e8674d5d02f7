-- Writes one partition's users and moves its position, or refuses and writes nothing.
--
-- Refuses where the stored position is not the expected one: then another writer was here, or this
-- Redis went back in time or lost the partition. All values are absolute, so that a call which is
-- repeated does no harm. The position is written last.
--
-- A user with counts alone has been read or written before. Where the key is not there it was evicted
-- or removed: counts are written and the user is flagged, since the rest of the record is gone. So has
-- a user whose record ends with the counts: it brings no profile, and the user is not deleted.
--
-- KEYS  position, totals, then the active-day keys, the keys of users with counts alone, and the
--       keys of users with whole records, in the order of their arguments
-- ARGV   1 expected epoch        2 expected offset       3 new offset
--        4 event_at_ms or ""     5 fresh_at_ms or ""
--        6 users  7 posts  8 comments: the totals; "" in 6 leaves them as they are, and
--          so does a call that moves nothing where they are there
--        9 seconds that a day key is kept
--       10 number of days; for each: n, then n user ids
--        . number of users with counts alone; for each: v, posts, comments
--        . number of users with whole records; for each: n, then n names and values to set,
--          m, then m names to remove
--        . Kafka's time in ms of the record before the new offset, or ""
-- Returns {1, users lost}, or {0, stored epoch, stored offset}, both "" where there is no position.

local call = redis.call
local position = call('HMGET', KEYS[1], 'epoch', 'offset')
if position[1] ~= ARGV[1] or position[2] ~= ARGV[2] then
    return {0, position[1] or '', position[2] or ''}
end

local key, arg = 3, 11
for _ = 1, tonumber(ARGV[10]) do
    local last = arg + tonumber(ARGV[arg])
    call('PFADD', KEYS[key], unpack(ARGV, arg + 1, last))
    call('EXPIRE', KEYS[key], ARGV[9])
    key, arg = key + 1, last + 1
end

local last = arg + 3 * tonumber(ARGV[arg])
local lost = 0
for value = arg + 1, last, 3 do
    if call('HSET', KEYS[key], 'v', ARGV[value], 'posts', ARGV[value + 1], 'comments', ARGV[value + 2]) > 0 then
        call('HSET', KEYS[key], 'flagged', '1')
        lost = lost + 1
    end
    key = key + 1
end
arg = last + 1

local records = tonumber(ARGV[arg])
arg = arg + 1
for _ = 1, records do
    last = arg + tonumber(ARGV[arg])
    local added = call('HSET', KEYS[key], unpack(ARGV, arg + 1, last))
    if ARGV[last - 1] == 'comments' and 2 * added == last - arg then
        call('HSET', KEYS[key], 'flagged', '1')
        lost = lost + 1
    end
    arg = last + 1
    last = arg + tonumber(ARGV[arg])
    if last > arg then
        call('HDEL', KEYS[key], unpack(ARGV, arg + 1, last))
    end
    key, arg = key + 1, last + 1
end

if ARGV[6] ~= '' and (ARGV[3] ~= ARGV[2] or call('EXISTS', KEYS[2]) == 0) then
    call('HSET', KEYS[2], 'users', ARGV[6], 'posts', ARGV[7], 'comments', ARGV[8])
end
call('HSET', KEYS[1], 'offset', ARGV[3])
if ARGV[arg] ~= '' then
    call('HSET', KEYS[1], 'mark', ARGV[3] .. ':' .. ARGV[arg])
end
if ARGV[4] ~= '' then
    call('HSET', KEYS[1], 'event_at_ms', ARGV[4])
end
if ARGV[5] ~= '' then
    call('HSET', KEYS[1], 'fresh_at_ms', ARGV[5])
end
return {1, lost}
