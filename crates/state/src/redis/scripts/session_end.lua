-- ARGV: …, the user it must be of ('' for anyone), most renewals that it is followed through, '1' if only within its slot.
-- Returns 'ended', whether it had not expired, user, handle, absolute end; or where it went.
local function finish(session_key, mark_key)
    local session = redis.call('HMGET', session_key, 'u', 'h', 'e', 'a')
    local user, handle, idle_end, absolute_end = session[1], session[2], session[3], session[4]
    if handle then
        if ARGV[3] ~= '' and ARGV[3] ~= user then
            return {'other'}
        end
        mark(mark_key, text(now), tonumber(absolute_end))
        redis.call('DEL', session_key)
        return {'ended', tonumber(idle_end) > now and 1 or 0, user or '', handle, absolute_end}
    end
    local marked = redis.call('GET', mark_key)
    if not marked then
        return {'missing'}
    end
    local successor = marked:match('^%d+ (%S+)')
    return successor and {'moved', successor} or {'gone'}
end

local DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'

-- The key of the session with this hash, as `keys.rs` makes it; nothing where this script must not go.
local function key_of(hash)
    local start, own_shard = KEYS[1]:match('^(.*:{s)(%x%x)}:')
    local high, low = DIGITS:find(hash:sub(1, 1), 1, true) - 1, DIGITS:find(hash:sub(2, 2), 1, true) - 1
    local shard = string.format('%02x', high * 4 + math.floor(low / 16))
    if ARGV[5] ~= '1' or shard == own_shard then
        return start .. shard .. '}:' .. hash
    end
end

-- Who renews all the time would always be a step ahead of one who asks for each successor by itself.
local finished = finish(KEYS[1], KEYS[2])
for _ = 1, tonumber(ARGV[4]) do
    local key = finished[1] == 'moved' and key_of(finished[2])
    if not key then
        break
    end
    finished = finish(key, key .. ':m')
end
return finished
