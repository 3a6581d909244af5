-- ARGV: time, key.
forget(ARGV[2])
return 1
