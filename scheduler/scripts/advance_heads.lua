-- Moves both chains' heads by one segment, if nobody else has, and drops what it sealed.
-- KEYS: heads, sealed, outbox.
-- ARGV: the audit link that was the head ('' for none), new audit link, new usage link, sealed_until,
-- number of entries, their ids, then pairs of source and last sequence.
-- Returns 1, or 0 when the head is another one.
local head = redis.call('HGET', KEYS[1], 'audit') or ''
if head ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'audit', ARGV[2], 'usage', ARGV[3], 'sealed_until', ARGV[4])
local entries = tonumber(ARGV[5])
for i = 6, 5 + entries do
  redis.call('XDEL', KEYS[3], ARGV[i])
end
for i = 6 + entries, #ARGV, 2 do
  local before = tonumber(redis.call('HGET', KEYS[2], ARGV[i])) or 0
  if tonumber(ARGV[i + 1]) > before then
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
return 1
