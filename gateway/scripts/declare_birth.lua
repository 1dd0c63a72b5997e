-- Says since when this Redis has known every lease, unless that is said already.
-- KEYS: birth. ARGV: 1 if there was never any lease, 0 if leases may have been lost until now.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
if redis.call('EXISTS', KEYS[1]) == 0 then
  local at = 0
  if ARGV[1] == '0' then
    at = clock()
  end
  redis.call('HSET', KEYS[1], 'at', string.format('%.6f', at), 'run', run)
end
