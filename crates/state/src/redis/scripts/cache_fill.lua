-- ARGV: time, key, token, nonce, fresh, life, whether there is a value, value, entries and bytes there is room for, and how many
-- entries may be removed for that.
local key, nonce = ARGV[2], ARGV[4]
local entry = known(key)
if entry and entry.nonce == nonce then
    -- This very call came before.
    return 1
end
entry = held(key, ARGV[3])
if not entry then
    return 0
end
local refusal = touch({key})
if refusal then
    return refusal
end
local filled = {filled = now, fresh = tonumber(ARGV[5]), life = tonumber(ARGV[6]), failures = 0, nonce = nonce}
filled.bytes = #key + #ARGV[8]
if ARGV[7] == '1' then
    redis.call('HSET', VALUES, key, ARGV[8])
else
    redis.call('HDEL', VALUES, key)
end
save(key, filled, entry.bytes)
clear_away(key)
local entries_max, bytes_max = tonumber(ARGV[9]), tonumber(ARGV[10])
for _ = 1, tonumber(ARGV[11]) do
    local fits = redis.call('ZCARD', USED) <= entries_max and tonumber(redis.call('HGET', ENTRIES, '')) <= bytes_max
    if fits then
        break
    end
    local oldest = redis.call('ZRANGE', USED, 0, 1)
    forget(oldest[1] ~= key and oldest[1] or oldest[2])
end
return 1
