-- KEYS: …, new session, its mark, and perhaps the user's index. ARGV: …, old hash, new hash, user ('' for nobody), whether the
-- id was followed to, grace, most bytes, then fields.
local user = ARGV[5]
local session, refused = find()
if not session then
    local marked = redis.call('GET', KEYS[2])
    local ended_at, successor, renewed_for = (marked or ''):match('^(%d+) (%S+) (.*)$')
    if successor == ARGV[4] then
        -- This very call came before, and its answer was lost.
        session = read(KEYS[3])
        return session and reply(session) or {'gone'}
    end
    if successor and user ~= '' and renewed_for == user and now - ended_at < tonumber(ARGV[7]) then
        return {'moved', successor}
    end
    return refused
end
if ARGV[6] == '1' and session.u ~= user then
    return {'gone'}
end
local before = copy(session)
if #ARGV > 8 then
    refused = change(session, 9, tonumber(ARGV[8]))
    if refused then
        return refused
    end
end
session.u = user ~= '' and user or nil
use(session)
local absolute_end = tonumber(session.a)
if KEYS[5] then
    enlist(KEYS[5], session.c, session.h .. ' ' .. ARGV[4] .. ' ' .. session.a, absolute_end, now)
    if before.u == user then
        redis.call('ZREM', KEYS[5], session.h .. ' ' .. ARGV[3] .. ' ' .. session.a)
    end
end
mark(KEYS[4], '', absolute_end)
mark(KEYS[2], text(now) .. ' ' .. ARGV[4] .. ' ' .. user, absolute_end)
redis.call('RENAME', KEYS[1], KEYS[3])
store(KEYS[3], session, before)
redis.call('PEXPIRE', KEYS[3], text(session.e - now))
return reply(session, before.u)
