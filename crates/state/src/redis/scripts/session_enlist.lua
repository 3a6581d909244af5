-- Enters a session into its user's index ahead of its creation or renewal, where that is on another server.
-- KEYS: index. ARGV: time, handle, hash, when it was created ('' for now), when it ends ('' for: after the next), absolute time.
local us = now_us()
local now = ms(us)
local created = ARGV[4] ~= '' and ARGV[4] or text(us)
local ends_at = ARGV[5] ~= '' and tonumber(ARGV[5]) or now + ARGV[6]
local member = ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. text(ends_at)
enlist(KEYS[1], created, member, ends_at, now)
return member
