-- Returns the answer under a key, if there is one.
local found = redis.call('HMGET', KEYS[1], 'f', 's', 'h', 'b', 'e')
if not found[2] or tonumber(found[5]) <= now then
    return {'missing'}
end
return {'answered', found[1], found[2], found[3], found[4], found[5]}
