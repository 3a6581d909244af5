-- Returns what is under a key: missing, or fingerprint and end; of an answer its status, fields and body too.
local found = redis.call('HMGET', KEYS[1], 'f', 's', 'h', 'b', 'e')
if not found[1] or tonumber(found[5]) <= now then
    return {'missing'}
end
if not found[2] then
    return {'begun', found[1], found[5]}
end
return {'answered', found[1], found[5], found[2], found[3], found[4]}
