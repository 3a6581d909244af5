-- Returns what a list says of a session: 'live', created, idle end, absolute end, handle.
local session = redis.call('HMGET', KEYS[1], 'c', 'e', 'a', 'h')
if session[1] and tonumber(session[2]) > now then
    return {'live', session[1], session[2], session[3], session[4]}
end
if session[1] or redis.call('EXISTS', KEYS[2]) == 1 then
    return {'gone'}
end
return {'missing'}
