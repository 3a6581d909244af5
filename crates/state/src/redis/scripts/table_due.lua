-- KEYS: expiries. ARGV: time, most rows. Returns the table and key of rows that have expired, as `table/key`.
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(ms(now_us())), 'LIMIT', 0, ARGV[2])
