-- Returns all of a session that has not expired; else what its mark says and until when it is kept.
local session = read(KEYS[1])
if session and tonumber(session.e) > now then
    return reply(session)
end
local marked = redis.call('GET', KEYS[2])
if marked and marked ~= '' then
    return {'ended', marked, now + redis.call('PTTL', KEYS[2])}
end
return {'missing'}
