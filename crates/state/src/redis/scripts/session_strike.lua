-- KEYS: index. ARGV: time, entries.
for at = 2, #ARGV do
    redis.call('ZREM', KEYS[1], ARGV[at])
end
return 0
