-- KEYS: index. ARGV: time, handle ('' for all), offset, most. Returns entries, newest first.
if ARGV[2] == '' then
    return redis.call('ZREVRANGE', KEYS[1], ARGV[3], ARGV[3] + ARGV[4] - 1)
end
local found = {}
local wanted = ARGV[2] .. ' '
for _, member in ipairs(redis.call('ZREVRANGE', KEYS[1], 0, -1)) do
    if member:sub(1, #wanted) == wanted then
        found[#found + 1] = member
    end
end
local page = {}
for at = ARGV[3] + 1, math.min(ARGV[3] + ARGV[4], #found) do
    page[#page + 1] = found[at]
end
return page
