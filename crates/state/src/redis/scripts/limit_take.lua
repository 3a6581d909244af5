-- The decision of `limits/gcra.rs`, for several keys at once: all or none. What is kept of a key is when its whole burst is
-- there again, in microseconds, in a sorted set beside one of the keys in order.
-- KEYS: for each call the times and the order of its limit. ARGV: time, then for each call key, interval, window, burst, cost.
-- Returns the time, and what was kept of each key before.
local us = now_us()

local function decide(kept, interval, window, burst, cost)
    local latest = us + window
    local due = math.max(us, math.min(kept or us, latest))
    -- The clock was set back, or the quota has changed.
    local is_beyond = kept and kept > latest
    local after = due + cost * interval
    if cost > burst or after > latest then
        return false, is_beyond and due
    end
    return true, (is_beyond or cost > 0) and after
end

local function keep(times, order, key, kept, full_at)
    redis.call('ZADD', times, text(full_at), key)
    if not kept then
        redis.call('ZADD', order, 0, key)
        -- Each new key takes up to two away that are at rest, so that they cannot pile up.
        for _, rested in ipairs(redis.call('ZRANGEBYSCORE', times, '-inf', text(us), 'LIMIT', 0, 2)) do
            redis.call('ZREM', times, rested)
            redis.call('ZREM', order, rested)
        end
    end
    local left = ms(full_at - us) + 1
    if redis.call('PTTL', times) < left then
        redis.call('PEXPIRE', times, left)
        redis.call('PEXPIRE', order, left)
    end
end

local calls, seen, are_all_allowed = {}, {text(us)}, true
for at = 2, #ARGV, 5 do
    local number = (at - 2) / 5
    local call = {times = KEYS[1 + 2 * number], order = KEYS[2 + 2 * number], key = ARGV[at]}
    call.pace = {tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])}
    call.cost = tonumber(ARGV[at + 4])
    local kept = redis.call('ZSCORE', call.times, call.key)
    seen[#seen + 1] = kept or ''
    call.kept = kept and tonumber(kept)
    call.is_allowed = decide(call.kept, call.pace[1], call.pace[2], call.pace[3], call.cost)
    are_all_allowed = are_all_allowed and call.is_allowed
    calls[#calls + 1] = call
end
for _, call in ipairs(calls) do
    local cost = (call.is_allowed and not are_all_allowed) and 0 or call.cost
    local _, full_at = decide(call.kept, call.pace[1], call.pace[2], call.pace[3], cost)
    if full_at then
        keep(call.times, call.order, call.key, call.kept, full_at)
    end
end
return seen
