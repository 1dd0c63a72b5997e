-- Moves a counter one step on, if it is still where the caller read it.
-- KEYS[1] counter; ARGV: expected, next. Returns 1, or 0 when it is elsewhere.
if (tonumber(redis.call('GET', KEYS[1])) or 0) ~= tonumber(ARGV[1]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
