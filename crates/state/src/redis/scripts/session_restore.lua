-- KEYS: …, and perhaps the user's index. ARGV: …, hash, handle, user ('' for nobody), when it was created in microseconds, idle
-- time, idle end, absolute end, the largest revision, then for each field its name, revision and JSON.
local marked = redis.call('GET', KEYS[2])
if marked and marked ~= '' then
    return 0
end
-- One that lives is what was brought before, or was used since.
if find() then
    return 0
end
redis.call('DEL', KEYS[1])
local idle_end, absolute_end = tonumber(ARGV[8]), tonumber(ARGV[9])
if idle_end <= now then
    return 0
end
redis.call('HSET', KEYS[1], 'h', ARGV[4], 'c', ARGV[6], 'i', ARGV[7], 'e', ARGV[8], 'a', ARGV[9], 'r', ARGV[10])
if ARGV[5] ~= '' then
    redis.call('HSET', KEYS[1], 'u', ARGV[5])
end
for at = 11, #ARGV, 3 do
    redis.call('HSET', KEYS[1], ':' .. ARGV[at], ARGV[at + 1] .. ' ' .. ARGV[at + 2])
end
redis.call('PEXPIRE', KEYS[1], text(idle_end - now))
mark(KEYS[2], '', absolute_end)
if KEYS[3] then
    enlist(KEYS[3], ARGV[6], ARGV[4] .. ' ' .. ARGV[3] .. ' ' .. ARGV[9], absolute_end, now)
end
return 0
