-- Goes before scripts that keep time: seconds since 1970 by the clock of Redis.
local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end
