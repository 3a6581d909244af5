-- KEYS: rows, their keys in order. ARGV: time, first key, first key behind the last, most rows, bytes after which the page
-- ends. Returns whether there is more, and keys and rows in turn.
local now = ms(now_us())
local from, to = '[' .. ARGV[2], '(' .. ARGV[3]
local most, bytes_max = tonumber(ARGV[4]), tonumber(ARGV[5])
local step = math.min(most + 1, 250)
local page, bytes = {}, 0
while true do
    local keys = redis.call('ZRANGEBYLEX', KEYS[2], from, to, 'LIMIT', 0, step)
    for _, key in ipairs(keys) do
        local stored = redis.call('HGET', KEYS[1], key)
        if live(stored, now) then
            if #page == 2 * most or bytes >= bytes_max then
                return {1, page}
            end
            page[#page + 1] = key
            page[#page + 1] = stored
            bytes = bytes + #key + #stored
        end
    end
    if #keys < step then
        return {0, page}
    end
    from = '(' .. keys[#keys]
end
