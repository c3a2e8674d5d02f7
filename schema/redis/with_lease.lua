-- Runs one command if the caller holds the lease.
--
-- KEYS  lease, the command's key
-- ARGV  1 token of the lease  2 command, then its arguments after the key
-- Returns 1, or 0 where the lease is not the caller's.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
redis.call(ARGV[2], KEYS[2], unpack(ARGV, 3))
return 1
