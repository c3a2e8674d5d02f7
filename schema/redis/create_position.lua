-- Creates a partition's position and totals where there is no position, whole or not at all, so that
-- projectors which start at the same time agree. Totals that are missing later were lost.
--
-- KEYS  position, totals
-- ARGV  1 offset  2 until  3 cluster  4 partitions, then more names and values
-- Returns 1 where it was created, 0 where it was there.

if redis.call('EXISTS', KEYS[1]) == 1 then
    return 0
end
redis.call('HSET', KEYS[1], 'epoch', '1', 'offset', ARGV[1], 'until', ARGV[2],
    'cluster', ARGV[3], 'partitions', ARGV[4], 'event_at_ms', '0', 'fresh_at_ms', '0', unpack(ARGV, 5))
redis.call('HSET', KEYS[2], 'users', '0', 'posts', '0', 'comments', '0')
return 1
