-- POST /v1/posts by authors chosen uniformly.
-- Arguments: ID_PREFIX AUTHORS TITLE BODY [KEY_PREFIX]. An id is the prefix and five digits. With a key prefix every
-- request carries an Idempotency-Key of its own.
dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "report.lua")

local before, after, authors, key
local sent = 0

function init(arguments)
    before = '{"authorId":"' .. arguments[1]
    authors = tonumber(arguments[2])
    after = string.format('","title":"%s","body":"%s"}', arguments[3], arguments[4])
    math.randomseed(os.time() * 64 + thread_number)
    if arguments[5] then
        key = string.format('Idempotency-Key: "%s-%d-', arguments[5], thread_number)
    end
end

function request()
    local body = before .. string.format("%05d", math.random(0, authors - 1)) .. after
    local headers = ""
    if key then
        sent = sent + 1
        headers = key .. sent .. '"\r\n'
    end
    return "POST /v1/posts HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" .. headers ..
        "Content-Length: " .. #body .. "\r\n\r\n" .. body
end
