-- KEYS: expiries, rows, their keys. ARGV: time, table, key, revision, when it expires ('0' for never), value.
local revision = live(redis.call('HGET', KEYS[2], ARGV[3]), ms(now_us()))
if revision and is_less(ARGV[4], revision) then
    return 0
end
local member = ARGV[2] .. '/' .. ARGV[3]
local refusal = touch({ARGV[2] .. ':' .. ARGV[3]})
if refusal then
    return refusal
end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4] .. ' ' .. ARGV[5] .. ' ' .. ARGV[6])
redis.call('ZADD', KEYS[3], 0, ARGV[3])
if ARGV[5] ~= '0' then
    redis.call('ZADD', KEYS[1], ARGV[5], member)
else
    redis.call('ZREM', KEYS[1], member)
end
return 0
