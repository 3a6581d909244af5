-- ARGV: …, holder, lease, nonce.
local name = ARGV[2]
local lease = held(name)
-- With the same nonce, this very call came before.
if lease and lease.nonce ~= ARGV[5] then
    return false
end
if not lease then
    -- Each lease takes up to two away that are over, so that they cannot pile up.
    for _, ended in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', text(now), 'LIMIT', 0, 2)) do
        forget(ended)
    end
    local token = text(next_revision(redis.call('GET', KEYS[4]), us))
    redis.call('SET', KEYS[4], token)
    lease = {token = token, expires_at = text(now + ARGV[4]), nonce = ARGV[5], holder = ARGV[3]}
    write(name, lease)
end
return reply(name, lease)
