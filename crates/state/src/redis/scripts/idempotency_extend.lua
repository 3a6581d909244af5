-- ARGV: time, token, lease.
local key = known()
if not key or key.s or key.t ~= ARGV[2] then
    return 0
end
local claimed_until = now + ARGV[3]
redis.call('HSET', KEYS[1], 'u', text(claimed_until))
keep_until(claimed_until + key.k)
return 1
