-- Without more ARGV.
local lease = held(ARGV[2])
return lease and reply(ARGV[2], lease)
