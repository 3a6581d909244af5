-- ARGV: …, token. Returns whether it held the lock.
local lease = held(ARGV[2])
if not lease or lease.token ~= ARGV[3] then
    return 0
end
forget(ARGV[2])
return 1
