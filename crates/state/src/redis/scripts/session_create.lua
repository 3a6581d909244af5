-- ARGV: …, hash, handle, user ('' for nobody), idle time, absolute time, most bytes, then fields as for a patch.
-- With KEYS[3], the user's index, the session is entered there.
local session, refused = find()
if session then
    -- Nobody else knows the id: this very call came before.
    return reply(session)
elseif refused[1] == 'gone' then
    return refused
end
local absolute_end = now + ARGV[7]
session = {h = ARGV[4], c = text(us), i = ARGV[6], a = text(absolute_end), u = ARGV[5] ~= '' and ARGV[5] or nil}
use(session)
refused = change(session, 9, tonumber(ARGV[8]))
if refused then
    return refused
end
if KEYS[3] then
    enlist(KEYS[3], session.c, session.h .. ' ' .. ARGV[3] .. ' ' .. session.a, absolute_end, now)
end
mark(KEYS[2], '', absolute_end)
store(KEYS[1], session, {})
return reply(session)
