-- A cache is four keys in one slot. What is known of a key is packed in the hash of entries: `filled` when that was, `fresh` and
-- `life` for how long it is and lives; while it is claimed, `token`, `claimed` since when and `lease` for how long, where the
-- token of a pause is empty; `failures`, `bytes` of key and value, and `nonce` of the call that filled it. Values are in a hash
-- beside it, absent for what is known not to exist. Two sorted sets have when keys were last used, and when they end. No key is
-- empty: the entry of that name holds the bytes of all.
-- KEYS: entries, values, used, ends. ARGV: time, ...
local ENTRIES, VALUES, USED, ENDS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local us = now_us()
local now = ms(us)

local function known(key)
    local packed = redis.call('HGET', ENTRIES, key)
    return packed and cmsgpack.unpack(packed)
end

-- What is left of a span; nil when it is over, or the clock was set back by more than all of it.
local function left(since, span)
    local rest = since and since + span - now
    return rest and rest > 0 and rest <= 2 * span and rest or nil
end

-- For how long an entry is fresh and lives from now on; nil when it has ended.
local function lives(entry)
    local life = entry and left(entry.filled, entry.life)
    return life and math.min(left(entry.filled, entry.fresh) or 0, life), life
end

-- A claim is remembered for twice its lease, for a value that comes late.
local function ends(entry)
    local filled = entry.filled and entry.filled + entry.life or 0
    local claimed = entry.claimed and entry.claimed + 2 * entry.lease or 0
    return math.max(filled, claimed)
end

-- The entry that a claim is on; nil when it was lost.
local function held(key, token)
    local entry = known(key)
    return entry and entry.token == token and ends(entry) > now and entry or nil
end
