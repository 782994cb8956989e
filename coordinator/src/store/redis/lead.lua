-- Makes this coordinator the leader, unless another one is. The epoch grows with every leader; the holder, a
-- random name, keeps two leaders apart even if Redis has lost the latest epoch.
--
-- KEYS: fence, leader. ARGV: holder, address, milliseconds of the lease, least epoch.
local leader = redis.call('HMGET', KEYS[2], 'holder', 'address')
if leader[1] and leader[1] ~= ARGV[1] then
  return { 'theirs', leader[2] }
end
local fence = redis.call('HMGET', KEYS[1], 'epoch', 'revision', 'server')
local epoch = math.max(tonumber(fence[1] or 0), tonumber(ARGV[4])) + 1
local revision = fence[2] or '0'
redis.call('HSET', KEYS[1], 'epoch', string.format('%d', epoch), 'holder', ARGV[1], 'revision', revision)
redis.call('HSET', KEYS[2], 'holder', ARGV[1], 'address', ARGV[2], 'epoch', string.format('%d', epoch))
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return { 'ours', string.format('%d', epoch), revision, fence[3] or '', fence[1] or '0' }
