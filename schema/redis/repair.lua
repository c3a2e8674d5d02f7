-- Replaces users of one partition by what a recount says, with the totals, and bumps the position's
-- epoch, so that the projector reads them again instead of overwriting them from its memory. A user
-- who is newer in Redis is left alone, unless on an older PostgreSQL timeline: then the database
-- went back, and that version is of a history that is gone.
--
-- KEYS  position, totals, then the users' keys
-- ARGV  for each user: version (0: there is no such user, the key goes), timeline, posts,
--       comments, deleted (1 or ""), n, then n names and values to set
-- Returns {epoch or "", then for each user 1 where it was replaced, 0 where Redis is newer}.

local call = redis.call
local epoch = call('HGET', KEYS[1], 'epoch')
if not epoch then
    return {''}
end

local outcome, arg, changed = {epoch}, 1, false
local users, posts, comments = 0, 0, 0
for key = 3, #KEYS do
    local old = call('HMGET', KEYS[key], 'v', 'posts', 'comments', 'deleted', 'tl')
    local version, timeline = tonumber(ARGV[arg]), tonumber(ARGV[arg + 1])
    local last = arg + 5 + tonumber(ARGV[arg + 5])
    local newer = (tonumber(old[1]) or 0) > version and version > 0
    if newer and (tonumber(old[5]) or 0) >= timeline then
        outcome[key - 1] = 0
    else
        if old[1] and not old[4] then
            users = users - 1
            posts = posts - (tonumber(old[2]) or 0)
            comments = comments - (tonumber(old[3]) or 0)
        end
        call('DEL', KEYS[key])
        if version > 0 then
            call('HSET', KEYS[key], unpack(ARGV, arg + 6, last))
            if ARGV[arg + 4] == '' then
                users = users + 1
                posts = posts + tonumber(ARGV[arg + 2])
                comments = comments + tonumber(ARGV[arg + 3])
            end
        end
        outcome[key - 1] = 1
        changed = true
    end
    arg = last + 1
end
if changed then
    call('HINCRBY', KEYS[2], 'users', users)
    call('HINCRBY', KEYS[2], 'posts', posts)
    call('HINCRBY', KEYS[2], 'comments', comments)
    call('HINCRBY', KEYS[1], 'epoch', 1)
end
return outcome
