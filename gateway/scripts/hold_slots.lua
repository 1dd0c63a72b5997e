-- Sets how many calls one gateway may have open, within a limit for all gateways together.
-- KEYS: slots, birth
-- ARGV: limit, seconds that a holding lives, source, sequence,
--       kept (in use, or still held), needed in all, wanted in all.
-- Returns {held, free after it}; held is -1 if the birth of this Redis has to be declared first, and
-- -2 if a newer request of the source has been answered before.
local limit, ttl, source, sequence = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local kept, needed, wanted = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local now = clock()
local born = birth(KEYS[2], now)
if not born then
  return {-1, 0}
end

local alive, known, holdings = now, nil, {}
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  if name == 'alive' then
    alive = tonumber(value)
  elseif name == 'born' then
    known = value
  else
    local held, newest, ends = string.match(value, '(%d+):(%d+):(.+)')
    holdings[name] = {held = tonumber(held), newest = tonumber(newest), ends = tonumber(ends)}
  end
end
if known ~= born then
  redis.call('DEL', KEYS[1])
  holdings, alive = {}, now
end
if holdings[source] and holdings[source].newest >= sequence then
  return {-2, 0}
end

-- When nobody was answered for longer than renewals take, this Redis may have hung, and then it is
-- not the holders who were silent.
local silent = now - alive
if silent < ttl / 2 then
  silent = 0
end
local others = 0
for name, holding in pairs(holdings) do
  local ends = holding.ends
  if silent > 0 and ends > alive then
    ends = ends + silent
    redis.call('HSET', KEYS[1], name, string.format('%d:%d:%.6f', holding.held, holding.newest, ends))
  end
  if ends <= now then
    redis.call('HDEL', KEYS[1], name)
  elseif name ~= source then
    others = others + holding.held
  end
end

local free = limit - others - kept
local held = kept
-- After a loss, holders say again what they hold; until all have had the time, nothing is new.
if free > 0 and now >= tonumber(born) + ttl then
  held = held + math.max(0, math.min(needed - held, free))
  free = limit - others - held
  held = held + math.max(0, math.min(wanted - held, math.floor(free / 4)))
  free = limit - others - held
end
redis.call('HSET', KEYS[1], source, string.format('%d:%d:%.6f', held, sequence, now + ttl),
  'alive', string.format('%.6f', now), 'born', born)
redis.call('PEXPIRE', KEYS[1], 3600000)
return {held, math.max(0, free)}
