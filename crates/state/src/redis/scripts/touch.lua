-- Who follows is told by the server which keys have changed. A row is no key, nor is an entry of a cache: so a key of its name comes
-- and goes. No replica and no log hears of that. It is done before anything else, since a slot that is being moved refuses it;
-- then it returns what to answer.
local function touch(names)
    local namespace, slot = KEYS[1]:match('^(.-):({.-}):')
    redis.set_repl(redis.REPL_NONE)
    for _, name in ipairs(names) do
        local key = namespace .. ':touched:' .. slot .. ':' .. name
        if redis.pcall('SET', key, '').err then
            return redis.error_reply('TRYAGAIN the slot is being moved')
        end
        redis.call('DEL', key)
    end
    redis.set_repl(redis.REPL_ALL)
end
