-- KEYS: a counter. Returns what was given out last.
return redis.call('GET', KEYS[1]) or '0'
