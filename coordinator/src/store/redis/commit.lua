-- Writes one group, if this coordinator still leads and the store has everything it wrote before.
--
-- KEYS: fence, leader. ARGV: epoch, holder, revision before, revision after, milliseconds of the lease, then
-- the commands: for each its number of words, and the words. Answers ok, deposed, behind or lost.
local fence = redis.call('HMGET', KEYS[1], 'epoch', 'holder', 'revision')
if not fence[1] then
  return 'lost'
end
if fence[1] ~= ARGV[1] or fence[2] ~= ARGV[2] then
  return 'deposed'
end
if fence[3] == ARGV[4] then
  -- This very group was written already; only the answer did not arrive.
  return 'ok'
end
if fence[3] ~= ARGV[3] then
  return 'behind'
end
-- Changes nothing, but is refused when memory is full, as it must be before anything is written: a script that has
-- begun to write is not stopped.
redis.call('HSET', KEYS[1], 'epoch', ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
local at = 6
while at <= #ARGV do
  local words = tonumber(ARGV[at])
  redis.call(unpack(ARGV, at + 1, at + words))
  at = at + words + 1
end
-- Last: a script that fails half-way is not undone, and must not pass for written. Its commands can be repeated.
redis.call('HSET', KEYS[1], 'revision', ARGV[4])
return 'ok'
