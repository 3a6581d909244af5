-- Keeps an entry, which had so many bytes before, and all four keys for as long as the last entry lives.
local function save(key, entry, bytes_before)
    local ends_at = ends(entry)
    redis.call('HSET', ENTRIES, key, cmsgpack.pack(entry))
    redis.call('ZADD', USED, text(now), key)
    redis.call('ZADD', ENDS, text(ends_at), key)
    if entry.bytes ~= bytes_before then
        redis.call('HINCRBY', ENTRIES, '', entry.bytes - bytes_before)
    end
    local kept = math.max(redis.call('PTTL', ENTRIES), ends_at - now)
    for _, name in ipairs(KEYS) do
        redis.call('PEXPIRE', name, text(kept))
    end
end

local function forget(key)
    local entry = known(key)
    if entry then
        redis.call('HINCRBY', ENTRIES, '', -entry.bytes)
    end
    redis.call('HDEL', ENTRIES, key)
    redis.call('HDEL', VALUES, key)
    redis.call('ZREM', USED, key)
    redis.call('ZREM', ENDS, key)
end

-- Each new entry takes up to two away that have ended, so that they cannot pile up.
local function clear_away(kept)
    for _, ended in ipairs(redis.call('ZRANGEBYSCORE', ENDS, '-inf', text(now), 'LIMIT', 0, 2)) do
        if ended ~= kept then
            forget(ended)
        end
    end
end
