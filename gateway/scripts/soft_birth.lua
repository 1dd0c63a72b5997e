-- Goes before scripts that lease: since when this Redis has known every lease, or nil when that has
-- not been declared. A server that was started again may have come back with old data, so that
-- counts as a loss, too.
local function birth(key, now)
  local known = redis.call('HMGET', key, 'at', 'run')
  if not known[1] then
    return nil
  end
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
  if run ~= known[2] then
    known[1] = string.format('%.6f', now)
    redis.call('HSET', key, 'at', known[1], 'run', run)
  end
  return known[1]
end
