-- Takes in a batch of one source's events: outbox, roll-ups, budgets and the source's mark, at once.
-- KEYS: marks, outbox, days, then the keys that ARGV counts from 1
-- ARGV: source, first, last, events,
--       how many day names, the names (each "<day> <tenant>"),
--       how many increments, for each: key, field, amount,
--       how many spends, for each: key, amount, the seconds that a budget without expiry gets, or 0.
-- Returns 1 and the mark if the batch was taken in; 0 and the mark if it is not the next one, and
-- then nothing has changed.
local source, first, last = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local mark = tonumber(redis.call('HGET', KEYS[1], source) or '0')
if first ~= mark + 1 then
  return {0, mark}
end

local at = 5
local function take()
  at = at + 1
  return ARGV[at - 1]
end

redis.call('XADD', KEYS[2], '*', 'source', source, 'first', ARGV[2], 'last', ARGV[3],
  'events', ARGV[4])
for _ = 1, tonumber(take()) do
  redis.call('ZADD', KEYS[3], 0, take())
end
for _ = 1, tonumber(take()) do
  local key, field, amount = KEYS[3 + tonumber(take())], take(), take()
  redis.call('HINCRBY', key, field, amount)
end
for _ = 1, tonumber(take()) do
  local key, amount, seconds = KEYS[3 + tonumber(take())], take(), tonumber(take())
  redis.call('HINCRBY', key, 'spent', amount)
  if redis.call('HEXISTS', key, 'r:' .. source) == 1 then
    if redis.call('HINCRBY', key, 'r:' .. source, '-' .. amount) <= 0 then
      redis.call('HDEL', key, 'r:' .. source)
    end
  end
  if seconds > 0 and redis.call('TTL', key) < 0 then
    redis.call('EXPIRE', key, seconds)
  end
end
redis.call('HSET', KEYS[1], source, ARGV[3])
return {1, last}
