-- A session is a hash: u user (as an owner: realm.rs tells of them), h handle, c created (microseconds), i idle time, e idle end,
-- a absolute end, r the last revision, and `:name` for each field, as `<revision> <JSON>`. Beside it stands a mark that outlives it, by which the id is
-- known never to be used again: empty while the session lives, `<ended at>` after it was ended, or
-- `<ended at> <successor> <user>` after it was renewed.
-- KEYS: session, mark. ARGV: time, how long a mark outlives the absolute end.

local us = now_us()
local now = ms(us)

local function read(key)
    local flat = redis.call('HGETALL', key)
    if #flat == 0 then
        return nil
    end
    local session = {}
    for at = 1, #flat, 2 do
        session[flat[at]] = flat[at + 1]
    end
    return session
end

-- The session, or nothing and why.
local function find()
    local session = read(KEYS[1])
    if session and tonumber(session.e) > now then
        return session
    end
    if session or redis.call('EXISTS', KEYS[2]) == 1 then
        return nil, {'gone'}
    end
    return nil, {'missing'}
end

local function reply(session, before)
    local flat = {}
    for name, value in pairs(session) do
        flat[#flat + 1] = name
        flat[#flat + 1] = value
    end
    return {'live', flat, before or ''}
end

local function mark(key, value, ends_at)
    redis.call('SET', key, value, 'PX', text(math.max(ends_at + ARGV[2] - now, 1)))
end

-- Moves the idle end on, in the copy alone.
local function use(session)
    session.e = text(math.min(now + session.i, tonumber(session.a)))
end

local function is_past_half(session)
    local moved = math.min(now + session.i, tonumber(session.a))
    return session.e - now < math.floor(session.i / 2) and moved > tonumber(session.e)
end

-- Changes fields of the copy as ARGV says from `first` on: name, expected revision ('' for any), JSON ('' removes), if all
-- together stay within `bytes_max`. Returns what refused it, else nothing.
local function change(session, first, bytes_max)
    for at = first, #ARGV, 3 do
        local name, expected, json = ':' .. ARGV[at], ARGV[at + 1], ARGV[at + 2]
        local found = session[name] and session[name]:match('^%d+')
        if expected ~= '' and expected ~= (found or '0') then
            return {'conflict', (at - first) / 3, found or ''}
        end
        if json == '' then
            session[name] = nil
        else
            session.r = text(next_revision(session.r, us))
            session[name] = session.r .. ' ' .. json
        end
    end
    local bytes = 0
    for name, value in pairs(session) do
        if name:sub(1, 1) == ':' then
            bytes = bytes + #name - 1 + #value - #value:match('^%d+ ')
        end
    end
    if bytes > bytes_max then
        return {'large', bytes}
    end
end

-- Stores what differs from what is stored.
local function store(key, session, before)
    for name, value in pairs(session) do
        if before[name] ~= value then
            redis.call('HSET', key, name, value)
        end
    end
    for name in pairs(before) do
        if not session[name] then
            redis.call('HDEL', key, name)
        end
    end
    if session.e ~= before.e then
        redis.call('PEXPIRE', key, text(session.e - now))
    end
end

local function copy(session)
    local same = {}
    for name, value in pairs(session) do
        same[name] = value
    end
    return same
end
