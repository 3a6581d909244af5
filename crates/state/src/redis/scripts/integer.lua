-- Sums of 64-bit integers as decimal text, which doubles cannot hold: two halves of ten digits, of one sign.

local HALF = 10000000000

local function parse(value)
    local sign, digits = value:match('^([+-]?)0*(%d+)$')
    if not digits or #digits > 19 then
        return nil
    end
    local high, low = tonumber(digits:sub(1, -11)) or 0, tonumber(digits:sub(-10))
    if sign == '-' then
        return -high, -low
    end
    return high, low
end

-- Nothing when `value` is no such integer, or the sum would not be one.
local function add(value, by)
    local high, low = parse(value)
    if not high then
        return nil
    end
    local more_high, more_low = parse(by)
    high, low = high + more_high, low + more_low
    local carry = low >= HALF and 1 or low <= -HALF and -1 or 0
    high, low = high + carry, low - carry * HALF
    if high > 0 and low < 0 then
        high, low = high - 1, low + HALF
    elseif high < 0 and low > 0 then
        high, low = high + 1, low - HALF
    end
    local edge = (high < 0 or low < 0) and 6854775808 or 6854775807
    if math.abs(high) > 922337203 or (math.abs(high) == 922337203 and math.abs(low) > edge) then
        return nil
    end
    local sign = (high < 0 or low < 0) and '-' or ''
    if high == 0 then
        return sign .. string.format('%.0f', math.abs(low))
    end
    return sign .. string.format('%.0f%010.0f', math.abs(high), math.abs(low))
end

-- Of two that are not negative and have no zeros before them.
local function is_less(one, other)
    return #one < #other or (#one == #other and one < other)
end
