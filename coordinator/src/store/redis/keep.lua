-- Renews the leader's lease, or ends it (a lease of 0), or notes the server that is trusted.
--
-- KEYS: fence, leader, meta, jobs. ARGV: epoch, holder, address, milliseconds of the lease, server ('' leaves it),
-- revision, least number of jobs ('' for any). Answers ok, deposed, behind or lost.
local fence = redis.call('HMGET', KEYS[1], 'epoch', 'holder', 'revision')
if not fence[1] then
  return 'lost'
end
if fence[1] ~= ARGV[1] or fence[2] ~= ARGV[2] then
  return 'deposed'
end
if ARGV[4] == '0' then
  redis.call('DEL', KEYS[2])
  return 'ok'
end
if fence[3] ~= ARGV[6] then
  return 'behind'
end
-- Somebody has removed keys of the farm, and the leader still has all of it. A user that may not count them does not.
if ARGV[7] ~= '' then
  local jobs = redis.pcall('SCARD', KEYS[4])
  if type(jobs) == 'table' and not string.find(jobs.err, 'WRONGTYPE') then
    jobs = tonumber(ARGV[7])
  elseif type(jobs) == 'table' then
    return jobs
  end
  if #redis.call('HGETALL', KEYS[3]) == 0 or jobs < tonumber(ARGV[7]) then
    return 'behind'
  end
end
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[1], 'server', ARGV[5])
end
-- A lease that ran out while nobody else wanted to lead is taken up again: the epoch is still the newest.
redis.call('HSET', KEYS[2], 'holder', ARGV[2], 'address', ARGV[3], 'epoch', ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 'ok'
