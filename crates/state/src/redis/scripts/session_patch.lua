-- ARGV: …, most bytes, then fields.
local session, refused = find()
if not session then
    return refused
end
local before = copy(session)
if #ARGV > 3 then
    refused = change(session, 4, tonumber(ARGV[3]))
    if refused then
        return refused
    end
end
if is_past_half(session) then
    use(session)
end
store(KEYS[1], session, before)
return reply(session)
