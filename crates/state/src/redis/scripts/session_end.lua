-- ARGV: …, the user it must be of ('' for anyone). Returns 'ended', whether it had not expired, user, handle, absolute end; or
-- where it went.
local session = redis.call('HMGET', KEYS[1], 'u', 'h', 'e', 'a')
local user, handle, idle_end, absolute_end = session[1], session[2], session[3], session[4]
if handle then
    if ARGV[3] ~= '' and ARGV[3] ~= user then
        return {'other'}
    end
    mark(KEYS[2], text(now), tonumber(absolute_end))
    redis.call('DEL', KEYS[1])
    return {'ended', tonumber(idle_end) > now and 1 or 0, user or '', handle, absolute_end}
end
local marked = redis.call('GET', KEYS[2])
if not marked then
    return {'missing'}
end
local successor = marked:match('^%d+ (%S+)')
return successor and {'moved', successor} or {'gone'}
