-- GET of users chosen uniformly.
-- Arguments: ID_PREFIX USERS [PARTITION_FILE]. An id is the prefix and six digits. With a partition file the request is
-- Webdis's HGETALL of the user's hash, else the read API's.
dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "report.lua")

local digits = {}
for i = 0, 999 do
    digits[i] = string.format("%03d", i)
end

local prefix, users, partitions
local tail = " HTTP/1.1\r\nHost: localhost\r\n\r\n"

function init(arguments)
    prefix, users = arguments[1], tonumber(arguments[2])
    if arguments[3] then
        local file = assert(io.open(arguments[3], "rb"))
        partitions = file:read("*a")
        file:close()
    end
    math.randomseed(os.time() * 64 + thread_number)
end

function request()
    local user = math.random(0, users - 1)
    local id = prefix .. digits[math.floor(user / 1000)] .. digits[user % 1000]
    if partitions then
        local partition = partitions:byte(user + 1) - 48
        return "GET /HGETALL/tally:1:%7B" .. partition .. "%7D:user:" .. id .. tail
    end
    return "GET /v1/users/" .. id .. tail
end
