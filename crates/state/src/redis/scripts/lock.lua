-- Leases are kept in a hash by the lock's name, as `<token> <expires_at> <nonce> <holder>`, beside a sorted set of the names
-- and one of when they end. KEYS: leases, names, ends, last token. ARGV: time, and mostly a name.
local us = now_us()
local now = ms(us)

local function held(name)
    local stored = redis.call('HGET', KEYS[1], name)
    if not stored then
        return nil
    end
    local token, expires_at, nonce, holder = stored:match('^(%d+) (%d+) (%d+) (.*)$')
    if tonumber(expires_at) <= now then
        return nil
    end
    return {token = token, expires_at = expires_at, nonce = nonce, holder = holder}
end

local function write(name, lease)
    local stored = table.concat({lease.token, lease.expires_at, lease.nonce, lease.holder}, ' ')
    redis.call('HSET', KEYS[1], name, stored)
    redis.call('ZADD', KEYS[2], 0, name)
    redis.call('ZADD', KEYS[3], lease.expires_at, name)
end

local function forget(name)
    redis.call('HDEL', KEYS[1], name)
    redis.call('ZREM', KEYS[2], name)
    redis.call('ZREM', KEYS[3], name)
end

local function reply(name, lease)
    return {name, lease.holder, lease.token, lease.expires_at}
end
