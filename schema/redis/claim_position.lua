-- Makes the caller the only writer of a partition and says where it stands, at one moment: whoever
-- wrote before is refused from now on, whatever it has on its way.
--
-- Without that, what the caller reads may already hold what another writer adds after the position
-- was read. Its own call for the same events is then refused, but not the one behind it in flight,
-- which expects the very offset that the other has reached; its totals lack what lies between.
--
-- KEYS  position, totals
-- ARGV  1 what to add to the epoch: random, so that a Redis which went back in time does not hand
--         the same epoch out to two writers
-- Returns {the fields of the position, the fields of the totals}, each nil where it is absent.

if redis.call('EXISTS', KEYS[1]) == 1 then
    redis.call('HINCRBY', KEYS[1], 'epoch', ARGV[1])
end
return {
    redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'until', 'cluster', 'partitions', 'event_at_ms'),
    redis.call('HMGET', KEYS[2], 'users', 'posts', 'comments'),
}
