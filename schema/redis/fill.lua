-- Writes users of one partition of a generation that is being built, adds them to its totals and
-- moves the mark of how far the source has been read; or refuses and writes nothing. The mark is
-- what makes a fill resumable: users, totals and mark move together.
--
-- KEYS  position, totals, then the users' keys
-- ARGV  1 expected epoch  2 expected mark  3 new mark  4 users  5 posts  6 comments: to be added
--       for each user: n, then n names and values to set
-- Returns {1}, or {0, stored epoch, stored mark}, "" for what is not there.

local call = redis.call
local position = call('HMGET', KEYS[1], 'epoch', 'filled')
if position[1] ~= ARGV[1] or position[2] ~= ARGV[2] then
    return {0, position[1] or '', position[2] or ''}
end

local arg = 7
for key = 3, #KEYS do
    local last = arg + tonumber(ARGV[arg])
    call('HSET', KEYS[key], unpack(ARGV, arg + 1, last))
    arg = last + 1
end
call('HINCRBY', KEYS[2], 'users', ARGV[4])
call('HINCRBY', KEYS[2], 'posts', ARGV[5])
call('HINCRBY', KEYS[2], 'comments', ARGV[6])
call('HSET', KEYS[1], 'filled', ARGV[3])
return {1}
