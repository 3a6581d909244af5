-- ARGV: time, fingerprint, until when it is kept, status, fields, body.
if known() then
    return 0
end
redis.call('DEL', KEYS[1])
if tonumber(ARGV[3]) > now then
    redis.call('HSET', KEYS[1], 'f', ARGV[2], 'o', '', 't', '0', 'u', '0', 'k', '1', 's', ARGV[4], 'h', ARGV[5], 'b', ARGV[6], 'n', '0')
    keep_until(tonumber(ARGV[3]))
end
return 0
