-- No key is empty: this stands for all of them.
local refusal = touch({''})
if refusal then
    return refusal
end
redis.call('UNLINK', ENTRIES, VALUES, USED, ENDS)
return 1
