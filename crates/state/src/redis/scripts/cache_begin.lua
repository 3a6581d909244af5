-- ARGV: time, key, token, lease, step of use. Returns how the key stands, and of an entry whether it has a value, that, and for how
-- long it is fresh and lives; then the failures if the claim was given.
local key, token, lease = ARGV[2], ARGV[3], tonumber(ARGV[4])
local entry = known(key)
local fresh, life = lives(entry)
local busy = entry and left(entry.claimed, entry.lease)
if busy and entry.token == token then
    -- This very call came before.
    busy = nil
end
if not life and busy then
    return {'busy', busy}
end

local function found(how, ...)
    local value = redis.call('HGET', VALUES, key)
    return {how, value and 1 or 0, value or '', fresh, life, ...}
end

if life and (fresh > 0 or busy) then
    if tonumber(redis.call('ZSCORE', USED, key) or 0) <= now - ARGV[5] then
        -- A full server can do without it.
        redis.pcall('ZADD', USED, text(now), key)
    end
    return found(fresh > 0 and 'fresh' or 'stale')
end
local claimed = {token = token, claimed = now, lease = lease, failures = entry and entry.failures or 0, bytes = #key}
if life then
    claimed.filled, claimed.fresh, claimed.life = entry.filled, entry.fresh, entry.life
    claimed.bytes = entry.bytes
end
save(key, claimed, entry and entry.bytes or 0)
if life then
    return found('stale', claimed.failures)
end
redis.call('HDEL', VALUES, key)
clear_away(key)
return {'missing', claimed.failures}
