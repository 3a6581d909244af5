redis.call('UNLINK', ENTRIES, VALUES, USED, ENDS)
return 1
