-- ARGV: time, key, token, lease.
local entry = held(ARGV[2], ARGV[3])
if not entry then
    return 0
end
entry.claimed, entry.lease = now, tonumber(ARGV[4])
save(ARGV[2], entry, entry.bytes)
return 1
