-- ARGV: time, key, token, pause.
local key, pause = ARGV[2], tonumber(ARGV[4])
local entry = held(key, ARGV[3])
if not entry then
    return 0
end
if pause > 0 then
    entry.token, entry.claimed, entry.lease, entry.failures = '', now, pause, entry.failures + 1
elseif not entry.filled then
    forget(key)
    return 1
else
    entry.token, entry.claimed, entry.lease = nil, nil, nil
end
save(key, entry, entry.bytes)
return 1
