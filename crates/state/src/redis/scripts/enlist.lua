-- A user's index is a sorted set of `<handle> <hash> <absolute end>`, by the time of creation. An entry may be there without
-- its session: whoever lists looks.

-- Clocks of servers may differ: an entry stays so much longer than its session, in milliseconds.
local SLACK = 3600000

local function enlist(index, created, member, ends_at, now)
    redis.call('ZADD', index, created, member)
    -- Each new entry takes up to two dead ones away, so that they cannot pile up.
    for _, old in ipairs(redis.call('ZRANGE', index, 0, 1)) do
        if tonumber(old:match('%d+$')) + SLACK <= now then
            redis.call('ZREM', index, old)
        end
    end
    local needed = ends_at + SLACK - now
    if redis.call('PTTL', index) < needed then
        redis.call('PEXPIRE', index, text(needed))
    end
end
