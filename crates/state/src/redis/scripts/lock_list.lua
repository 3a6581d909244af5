-- ARGV: time, first name, first name behind the last, most. Returns leases, one more than wanted if there is one.
local from, to, most = '[' .. ARGV[2], '(' .. ARGV[3], tonumber(ARGV[4])
local step = most + 1
local page = {}
while true do
    local names = redis.call('ZRANGEBYLEX', KEYS[2], from, to, 'LIMIT', 0, step)
    for _, name in ipairs(names) do
        local lease = held(name)
        if lease then
            page[#page + 1] = reply(name, lease)
            if #page == step then
                return page
            end
        end
    end
    if #names < step then
        return page
    end
    from = '(' .. names[#names]
end
