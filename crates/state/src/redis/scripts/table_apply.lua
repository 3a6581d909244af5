-- A batch of writes: first all of it is done to copies, then the copies are stored, so that a refused batch changes nothing.
-- KEYS: last revision, expiries, then rows and keys of each table. ARGV: time, number of tables, their names, then for each
-- write the table's number, key, condition, action, value or summand, time to live ('' for ever).
-- Returns 'done' and an outcome for each write, or what refused one and its number.
local us = now_us()
local now = ms(us)
local revision = redis.call('GET', KEYS[1])
local tables = tonumber(ARGV[2])
local first = 3 + tables
local rows, order = {}, {}

local function look(number, key)
    local id = number .. '/' .. key
    local row = rows[id]
    if not row then
        local stored = redis.call('HGET', KEYS[1 + 2 * number], key)
        row = {number = tonumber(number), key = key, is_stored = stored}
        row.has_expiry = stored and stored:match('^%d+ (%d+)') ~= '0'
        local at
        row.revision, row.expires_at, at = live(stored, now)
        row.value = row.revision and function() return stored:sub(at) end
        rows[id] = row
        order[#order + 1] = row
    end
    return row
end

local function expiry(ttl)
    return ttl == '' and '0' or text(now + ttl)
end

local function set(row, value, expires_at)
    revision = text(next_revision(revision, us))
    row.value = function() return value end
    row.revision, row.expires_at, row.is_changed = revision, expires_at, true
end

local function holds(row, condition)
    return condition == 'any' or (condition == 'absent' and not row.revision)
        or (condition == 'present' and row.revision) or condition == row.revision
end

local outcomes = {'done'}
for at = first, #ARGV, 6 do
    local index = (at - first) / 6
    local key, condition, action, value, ttl = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
    local row = look(ARGV[at], key)
    if not holds(row, condition) then
        return {'conflict', index, row.revision or ''}
    end
    local outcome = ''
    if action == 'put' then
        set(row, value, expiry(ttl))
        outcome = row.revision
    elseif action == 'delete' then
        outcome = row.revision and '1' or '0'
        row.revision, row.value, row.is_changed = nil, nil, true
    elseif action == 'increment' then
        local sum = add(row.value and row.value() or '0', value)
        if not sum then
            return {'integer', index}
        end
        set(row, sum, row.revision and row.expires_at or expiry(ttl))
        outcome = row.revision .. ' ' .. sum
    elseif action == 'fence' then
        local newest = row.revision and add(row.value(), '0')
        if row.revision and (not newest or newest:sub(1, 1) == '-') then
            return {'integer', index}
        end
        if newest and is_less(value, newest) then
            return {'fenced', index, newest}
        end
        -- The usual case, a holder that goes on, changes nothing.
        if value ~= newest or row.expires_at ~= '0' then
            set(row, value, '0')
        end
    end
    outcomes[#outcomes + 1] = outcome
end

local touched = {}
for _, row in ipairs(order) do
    if row.is_changed and (row.revision or row.is_stored) then
        touched[#touched + 1] = ARGV[2 + row.number] .. ':' .. row.key
    end
end
local refusal = touch(touched)
if refusal then
    return refusal
end

local did_set = false
for _, row in ipairs(order) do
    local stored_in, ordered_in = KEYS[1 + 2 * row.number], KEYS[2 + 2 * row.number]
    local member = ARGV[2 + row.number] .. '/' .. row.key
    if row.is_changed and row.revision then
        did_set = true
        redis.call('HSET', stored_in, row.key, row.revision .. ' ' .. row.expires_at .. ' ' .. row.value())
        if not row.is_stored then
            redis.call('ZADD', ordered_in, 0, row.key)
        end
        if row.expires_at ~= '0' then
            redis.call('ZADD', KEYS[2], row.expires_at, member)
        elseif row.has_expiry then
            redis.call('ZREM', KEYS[2], member)
        end
    elseif row.is_changed and row.is_stored then
        redis.call('HDEL', stored_in, row.key)
        redis.call('ZREM', ordered_in, row.key)
        if row.has_expiry then
            redis.call('ZREM', KEYS[2], member)
        end
    end
end
if did_set then
    redis.call('SET', KEYS[1], revision)
end
return outcomes
