-- A row is stored as `<revision> <expires_at, 0 for never> <value>`, in a hash beside a sorted set of its keys.

-- Its revision, its expiry and where its value begins; nothing when it has expired.
local function live(stored, now)
    if not stored then
        return nil
    end
    local revision, expires_at, at = stored:match('^(%d+) (%d+) ()')
    if expires_at ~= '0' and tonumber(expires_at) <= now then
        return nil
    end
    return revision, expires_at, at
end
