-- Debits up to ARGV[3] requests from a token bucket that refills at a steady rate.
-- KEYS[1] bucket; ARGV: capacity, requests a second, wanted.
-- Returns {granted, milliseconds until one request is there}.
local capacity, rate, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local bucket = redis.call('HMGET', KEYS[1], 'level', 'at')
local level = tonumber(bucket[1]) or capacity
local at = tonumber(bucket[2]) or now
level = math.min(capacity, level + math.max(0, now - at) * rate)
local granted = math.min(wanted, math.floor(level))
level = level - granted
redis.call('HSET', KEYS[1], 'level', tostring(level), 'at', string.format('%.6f', math.max(now, at)))
redis.call('PEXPIRE', KEYS[1], math.ceil(capacity / rate * 1000) + 1000)
return {granted, math.ceil(math.max(0, 1 - level) / rate * 1000)}
