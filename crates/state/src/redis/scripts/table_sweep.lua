-- Removes rows of one table, if they are still there and have expired. KEYS: expiries, rows, keys. ARGV: time, table, keys.
-- Returns how many it were.
local now = ms(now_us())
local removed = 0
for at = 3, #ARGV do
    local stored = redis.call('HGET', KEYS[2], ARGV[at])
    if stored and not live(stored, now) then
        redis.call('HDEL', KEYS[2], ARGV[at])
        redis.call('ZREM', KEYS[3], ARGV[at])
        removed = removed + 1
    end
    if not live(stored, now) then
        redis.call('ZREM', KEYS[1], ARGV[2] .. '/' .. ARGV[at])
    end
end
return removed
