-- ARGV: time, key.
local refusal = touch({ARGV[2]})
if refusal then
    return refusal
end
forget(ARGV[2])
return 1
