return {redis.call('ZCARD', USED), tonumber(redis.call('HGET', ENTRIES, '') or 0)}
