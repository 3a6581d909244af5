-- ARGV: time, fingerprint, token, owner, lease, kept, 1 for at most once, owners that are dead.
local key = known()
if key then
    if key.f ~= ARGV[2] then
        return {'mismatched'}
    end
    if key.s then
        return {'answered', key.s, redis.call('HGET', KEYS[1], 'h'), redis.call('HGET', KEYS[1], 'b')}
    end
    if key.t == ARGV[3] then
        -- This very call came before.
        return {'claimed'}
    end
    local is_dead = key.u <= now
    for at = 8, #ARGV do
        is_dead = is_dead or key.o == ARGV[at]
    end
    if not is_dead then
        return {'running', key.u - now}
    end
    if ARGV[7] == '1' then
        return {'lost'}
    end
end
local claimed_until = now + ARGV[5]
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'f', ARGV[2], 'o', ARGV[4], 't', ARGV[3], 'u', text(claimed_until), 'k', ARGV[6])
keep_until(claimed_until + ARGV[6])
return {'claimed'}
