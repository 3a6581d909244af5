-- KEYS: times, order. ARGV: time, first key, first key behind the last, most. Returns keys that are not at rest and when they
-- are, in turn, one more than wanted if there is one.
local us = now_us()
local from, to, most = '[' .. ARGV[2], '(' .. ARGV[3], tonumber(ARGV[4])
local step = most + 1
local page = {}
while true do
    local keys = redis.call('ZRANGEBYLEX', KEYS[2], from, to, 'LIMIT', 0, step)
    for _, key in ipairs(keys) do
        local full_at = redis.call('ZSCORE', KEYS[1], key)
        if full_at and tonumber(full_at) > us then
            page[#page + 1] = key
            page[#page + 1] = full_at
            if #page == 2 * step then
                return page
            end
        end
    end
    if #keys < step then
        return page
    end
    from = '(' .. keys[#keys]
end
