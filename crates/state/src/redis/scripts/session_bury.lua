-- ARGV: …, the mark, until when it is kept.
redis.call('DEL', KEYS[1])
if tonumber(ARGV[4]) > now then
    redis.call('SET', KEYS[2], ARGV[3], 'PX', text(ARGV[4] - now))
end
return 0
