-- Without more ARGV.
local session, refused = find()
if not session then
    return refused
end
if is_past_half(session) then
    local before = copy(session)
    use(session)
    -- Where nothing can be written, as on a full disk, it can still be read.
    local written = redis.pcall('HSET', KEYS[1], 'e', session.e)
    if type(written) == 'table' and written.err then
        return reply(before)
    end
    redis.call('PEXPIRE', KEYS[1], text(session.e - now))
end
return reply(session)
