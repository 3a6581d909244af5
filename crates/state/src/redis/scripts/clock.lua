-- The time by this server's own clock, so that clients whose clocks differ agree. A test says what time it is: ARGV[1].
-- Numbers are doubles, exact up to 2^53: microseconds since 1970 are until the year 2255.
local function now_us()
    if ARGV[1] ~= '' then
        return tonumber(ARGV[1])
    end
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
end

local function ms(us)
    return math.floor(us / 1000)
end

-- A whole number as decimal text; Lua's own conversion would round after 14 digits.
local function text(number)
    return string.format('%.0f', number)
end

-- A revision larger than `last`, and larger than all that were given out before data was lost: it is the time, unless
-- that stands still.
local function next_revision(last, us)
    return math.max(tonumber(last or '0') + 1, us)
end
