-- ARGV: time, fingerprint, until when it is kept, status or nothing for what was only begun, fields, body.
local key = known()
-- What was brought as begun, and nobody has begun again, may have ended since.
if key and (key.s or key.u > 0) then
    return 0
end
redis.call('DEL', KEYS[1])
if tonumber(ARGV[3]) > now then
    -- No claim has this token.
    redis.call('HSET', KEYS[1], 'f', ARGV[2], 'o', '', 't', '', 'u', '0', 'k', '1')
    if ARGV[4] ~= '' then
        redis.call('HSET', KEYS[1], 's', ARGV[4], 'h', ARGV[5], 'b', ARGV[6], 'n', '0')
    end
    keep_until(tonumber(ARGV[3]))
end
return 0
