-- Leases units of a bucket that refills at a steady rate to one gateway, and takes in what became of
-- its earlier pieces. At every moment level + everything recorded as unspent <= capacity.
-- KEYS: bucket, birth
-- ARGV: capacity, units a second, seconds that a piece lives, source, new piece,
--       least useful, needed by calls that wait, wanted in all,
--       then for each earlier piece: piece, still unspent, given back so far (-1: all of it).
-- Returns {granted, level after it, unspent of all gateways}; granted is -1 if the birth of this
-- Redis has to be declared first.
local capacity, rate, ttl = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local source, least, needed, wanted = ARGV[4], tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local now = clock()
local born = birth(KEYS[2], now)
if not born then
  return {-1, '0', 0}
end

local level, at, known, pieces, unspent = nil, now, nil, {}, 0
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  if name == 'level' then
    level = tonumber(value)
  elseif name == 'at' then
    at = tonumber(value)
  elseif name == 'born' then
    known = value
  else
    local left, given, ends = string.match(value, '(%d+):(%d+):(.+)')
    pieces[name] = {left = tonumber(left), given = tonumber(given), ends = tonumber(ends)}
    unspent = unspent + pieces[name].left
  end
end
if known ~= born then
  -- New, or from before a loss: pieces that are not known here may be in use for one lifetime more.
  redis.call('DEL', KEYS[1])
  at = tonumber(born) + ttl
  level, pieces, unspent = 0, {}, 0
end

-- Time goes on, from the end of one piece to the end of the next.
local function advance(to)
  if to > at then
    level = math.max(level, math.min(capacity - unspent, level + (to - at) * rate))
    at = to
  end
end
local ended = {}
for name, piece in pairs(pieces) do
  if piece.ends <= now then
    ended[#ended + 1] = name
  end
end
table.sort(ended, function(a, b) return pieces[a].ends < pieces[b].ends end)
for _, name in ipairs(ended) do
  advance(pieces[name].ends)
  unspent = unspent - pieces[name].left
  pieces[name] = nil
end
advance(now)

local dropped = ended
for i = 9, #ARGV, 3 do
  local name = source .. ':' .. ARGV[i]
  local piece, left, given = pieces[name], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  if piece then
    -- A report that comes late, after a newer one, finds nothing more to take off or to give.
    left = math.min(piece.left, left)
    local back = piece.left - left
    if given >= 0 then
      back = math.min(back, math.max(0, given - piece.given))
      piece.given = math.max(piece.given, given)
    end
    level = level + back
    unspent = unspent - (piece.left - left)
    piece.left = left
    if left == 0 then
      dropped[#dropped + 1] = name
    else
      redis.call('HSET', KEYS[1], name, string.format('%d:%d:%.6f', left, piece.given, piece.ends))
    end
  end
end
if #dropped > 0 then
  redis.call('HDEL', KEYS[1], unpack(dropped))
end
-- Only after a limit was lowered.
level = math.min(level, capacity - unspent)

local there, granted = math.floor(level), 0
if there >= 1 and there >= least then
  granted = math.min(there, needed)
  -- What no call waits for is held back as the level falls, for the other gateways.
  granted = granted + math.min(wanted - needed, math.floor((there - granted) / 4))
end
if granted > 0 then
  level = level - granted
  unspent = unspent + granted
  redis.call('HSET', KEYS[1], source .. ':' .. ARGV[5], string.format('%d:0:%.6f', granted, now + ttl))
end
redis.call('HSET', KEYS[1], 'level', string.format('%.17g', level), 'at', string.format('%.17g', at),
  'born', born)
redis.call('PEXPIRE', KEYS[1], math.ceil((ttl + (capacity - level) / rate + 1) * 1000))
-- Below zero while it does not refill yet, so that who counts on from here comes back in time.
return {granted, string.format('%.6f', level - math.max(0, at - now) * rate), unspent}
