-- Replaces users of one partition by what a recount says, with their part of the totals, and bumps
-- the position's epoch, so that the projector reads them again instead of overwriting them from its
-- memory.
--
-- A user who is newer in Redis is left alone, unless on an older PostgreSQL timeline: then the
-- database went back, and that version is of a history that is gone. A caller who has made sure that
-- PostgreSQL is the one to follow gets the newer one replaced on the same timeline too. A user of a
-- later timeline is always left alone: that PostgreSQL is not the one written to any more.
--
-- Totals: what a flagged user shows went into the totals event by event, so that they move by what
-- the repair changes, whatever came since the recount was asked for. Of any other user the totals
-- are right and the hash is not: they move by the events that the recount is ahead, where these are
-- known, else by what the repair changes. Of a user that is lost (absent, or flagged as lost) the
-- hash does not even tell that much, so that it is left for another attempt until they are known; and
-- so is who is not at the version any more that was seen before the recount.
--
-- A version that was read with other counts or another profile is no longer what tells whether a
-- reader has the right ones: `corrected` keeps the highest such version, as long as it is not passed.
--
-- KEYS  position, totals, then the users' keys
-- ARGV  for each user: version (0: there is no such user, the key goes), timeline, posts, comments,
--       deleted (1 or ""), seen version, known (1 or ""), posts and comments since the version that
--       the totals hold, follow PostgreSQL (1 or ""), n, then n names and values to set
-- Returns {epoch or "", then for each user 1 where it was replaced, 2 where it is newer, 0 where it
-- is left for another attempt}.

local call = redis.call
local epoch = call('HGET', KEYS[1], 'epoch')
if not epoch then
    return {''}
end

local users, posts, comments = 0, 0, 0

local function uncount_shown(old)
    users = users - 1
    posts = posts - (tonumber(old[2]) or 0)
    comments = comments - (tonumber(old[3]) or 0)
end

-- Without totals to change all is left for another attempt: the projector writes them again.
local totals = call('EXISTS', KEYS[2]) == 1
local outcome, arg, changed = {epoch}, 1, false
for key = 3, #KEYS do
    local old = call('HMGET', KEYS[key], 'v', 'posts', 'comments', 'deleted', 'tl', 'flagged', 'corrected')
    local version, stored = tonumber(ARGV[arg]), tonumber(old[1]) or 0
    local seen, known = tonumber(ARGV[arg + 5]), ARGV[arg + 6] ~= ''
    local last = arg + 10 + tonumber(ARGV[arg + 10])
    local timeline, now = tonumber(old[5]) or 0, tonumber(ARGV[arg + 1])
    local follow = ARGV[arg + 9] ~= '' or version == 0
    local counted_as_shown = old[6] and old[6] ~= 'lost'
    local lost = old[6] == 'lost' or (stored == 0 and not old[6])
    local newer = stored > version and (timeline > now or (timeline == now and not follow))
    if newer then
        outcome[key - 1] = 2
    elseif not totals then
        outcome[key - 1] = 0
    elseif stored ~= seen and (not counted_as_shown or stored > version) then
        outcome[key - 1] = 0
    elseif lost and not known and stored <= version and version > 0 then
        outcome[key - 1] = 0
    else
        if version == 0 then
            -- Without a row: no event made it and it was never counted, unless the row went with the
            -- later part of a history that is gone.
            if stored > 0 and not old[4] and old[5] and timeline < now then
                uncount_shown(old)
            end
        elseif known and not counted_as_shown then
            posts = posts + tonumber(ARGV[arg + 7])
            comments = comments + tonumber(ARGV[arg + 8])
        else
            if stored > 0 and not old[4] then
                uncount_shown(old)
            end
            if ARGV[arg + 4] == '' then
                users = users + 1
                posts = posts + tonumber(ARGV[arg + 2])
                comments = comments + tonumber(ARGV[arg + 3])
            end
        end
        call('DEL', KEYS[key])
        if version > 0 then
            call('HSET', KEYS[key], unpack(ARGV, arg + 11, last))
        end
        local corrected = math.max(stored, tonumber(old[7]) or 0)
        if corrected >= version and version > 0 and ARGV[arg + 4] == '' then
            call('HSET', KEYS[key], 'corrected', string.format('%.0f', corrected))
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
