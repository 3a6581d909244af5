-- ARGV: …, token, lease.
local name = ARGV[2]
local lease = held(name)
if not lease or lease.token ~= ARGV[3] then
    return false
end
lease.expires_at = text(now + ARGV[4])
write(name, lease)
return reply(name, lease)
