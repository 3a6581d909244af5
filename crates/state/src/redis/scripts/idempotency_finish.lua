-- ARGV: time, token, nonce, status, fields, body.
local key = known()
if not key or key.t ~= ARGV[2] then
    return 0
end
if key.s then
    -- With the same nonce, this very call came before.
    return key.n == ARGV[3] and 1 or 0
end
redis.call('HSET', KEYS[1], 's', ARGV[4], 'h', ARGV[5], 'b', ARGV[6], 'n', ARGV[3])
keep_until(now + key.k)
return 1
