-- ARGV: time, bytes that are enough, keys. Returns for each key -1 if it is missing, or whether it has a value, that, and for how
-- long it is fresh and lives; for fewer keys when the values are longer than that together.
local read, bytes = {}, 0
for at = 3, #ARGV do
    local fresh, life = lives(known(ARGV[at]))
    if not life then
        read[#read + 1] = -1
    else
        local value = redis.call('HGET', VALUES, ARGV[at])
        bytes = bytes + (value and #value or 0)
        if bytes > tonumber(ARGV[2]) and at > 3 then
            return read
        end
        read[#read + 1] = value and 1 or 0
        read[#read + 1] = value or ''
        read[#read + 1] = fresh
        read[#read + 1] = life
    end
end
return read
