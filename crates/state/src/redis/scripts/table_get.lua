-- KEYS: rows. ARGV: time, key.
local stored = redis.call('HGET', KEYS[1], ARGV[2])
return live(stored, ms(now_us())) and stored
