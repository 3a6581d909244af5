-- KEYS: times, order. ARGV: time, key. Returns whether anything was missing.
local kept = redis.call('ZSCORE', KEYS[1], ARGV[2])
redis.call('ZREM', KEYS[1], ARGV[2])
redis.call('ZREM', KEYS[2], ARGV[2])
return kept and tonumber(kept) > now_us() and 1 or 0
