-- Reserves a slice of a budget for one gateway, and takes back what it does not need.
-- Granted only while spent + everything reserved + slice <= amount. Asked again with the same
-- sequence, it gives the same answer and changes nothing.
-- KEYS: budget, the source's set of budgets, the source's answers
-- ARGV: amount, source, sequence, given back, least useful, needed by calls that wait, wanted in all,
--       when the budget expires (Unix seconds; 0: never).
-- Returns {granted, spent, reserved by all}; granted is -2 if a newer request was answered before.
local amount, source, sequence = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local back, least = tonumber(ARGV[4]), tonumber(ARGV[5])
local needed, wanted, expires = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local spent, reserved, mine = 0, 0, 0
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local name, value = fields[i], tonumber(fields[i + 1])
  if name == 'spent' then
    spent = value
  elseif string.sub(name, 1, 2) == 'r:' then
    reserved = reserved + value
    if name == 'r:' .. source then
      mine = value
    end
  end
end

local answered = redis.call('HGET', KEYS[3], KEYS[1])
if answered then
  local newest, granted = string.match(answered, '(%d+):(%d+)')
  if tonumber(newest) == sequence then
    return {tonumber(granted), spent, reserved}
  elseif tonumber(newest) > sequence then
    return {-2, spent, reserved}
  end
end

back = math.max(0, math.min(back, mine))
mine, reserved = mine - back, reserved - back
local there, granted = amount - spent - reserved, 0
if there >= 1 and there >= least then
  granted = math.min(there, needed)
  granted = granted + math.min(wanted - needed, math.floor((there - granted) / 8))
end
mine, reserved = mine + granted, reserved + granted
if mine > 0 then
  redis.call('HSET', KEYS[1], 'r:' .. source, string.format('%d', mine))
elseif back > 0 then
  redis.call('HDEL', KEYS[1], 'r:' .. source)
end
if granted > 0 then
  redis.call('SADD', KEYS[2], KEYS[1])
end
if expires > 0 then
  redis.call('EXPIREAT', KEYS[1], expires)
end
redis.call('HSET', KEYS[3], KEYS[1], string.format('%d:%d', sequence, granted))
redis.call('EXPIRE', KEYS[3], 86400)
return {granted, spent, reserved}
