-- What is known of a key is a hash: f fingerprint, o owner, t the claim's token, u until when it lasts, k how long the key is
-- kept, e when it is forgotten; and of the answer s status, h fields, b body, n the nonce of the call that brought it.
-- KEYS: the key.
local us = now_us()
local now = ms(us)

local function known()
    local found = redis.call('HMGET', KEYS[1], 'f', 'o', 't', 'u', 'k', 'e', 's', 'n')
    if not found[1] or tonumber(found[6]) <= now then
        return nil
    end
    return {f = found[1], o = found[2], t = found[3], u = tonumber(found[4]), k = found[5], s = found[7], n = found[8]}
end

-- Keeps the key until then, and until then only.
local function keep_until(time)
    redis.call('HSET', KEYS[1], 'e', text(time))
    redis.call('PEXPIRE', KEYS[1], text(time - now))
end
