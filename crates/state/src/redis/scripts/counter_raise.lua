-- KEYS: a counter. ARGV: time, what is given out is to be larger than.
local last = redis.call('GET', KEYS[1]) or '0'
if is_less(last, ARGV[2]) then
    redis.call('SET', KEYS[1], ARGV[2])
end
return 0
