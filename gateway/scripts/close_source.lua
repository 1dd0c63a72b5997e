-- Frees what a source that has ended still holds of budgets; all it spent has been shipped before.
-- KEYS: the source's set of budgets
-- ARGV: source
-- Returns how many budgets it held something of.
local budgets = redis.call('SMEMBERS', KEYS[1])
local freed = 0
for _, key in ipairs(budgets) do
  freed = freed + redis.call('HDEL', key, 'r:' .. ARGV[1])
end
redis.call('DEL', KEYS[1])
return freed
