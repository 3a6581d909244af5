-- ARGV: time, token.
local key = known()
if not key or key.s or key.t ~= ARGV[2] then
    return 0
end
redis.call('DEL', KEYS[1])
return 1
