-- What has changed since a revision: the events, and the present value of every record that was touched. All
-- of it is read at one moment, so that it is the farm exactly as it stands at the revision that is answered.
--
-- KEYS: fence, leader, events. ARGV: prefix, revision, most records.
local fence = redis.call('HMGET', KEYS[1], 'revision', 'epoch')
local address = redis.call('HGET', KEYS[2], 'address') or ''
local now = fence[1] or '0'
local answer = { now, fence[2] or '0', address, 'changes', {}, {}, {} }
if now == ARGV[2] then
  return answer
end
local since = tonumber(ARGV[2])
local entries = redis.call('XRANGE', KEYS[3], string.format('%.0f-1', since), '+')
local first = entries[1] and tonumber(string.match(entries[1][1], '^%d+'))
if tonumber(now) < since then
  answer[4] = 'behind'
  return answer
end
if not first or first ~= since + 1 then
  answer[4] = 'reset'
  return answer
end
local prefix, seen, count = ARGV[1], {}, 0
for _, entry in ipairs(entries) do
  local fields = entry[2]
  for at = 1, #fields, 2 do
    if fields[at] == 'events' then
      table.insert(answer[7], fields[at + 1])
    elseif fields[at] == 'keys' then
      for key in string.gmatch(fields[at + 1], '[^\n]+') do
        if not seen[key] then
          seen[key] = true
          count = count + 1
          if count > tonumber(ARGV[3]) then
            answer[4] = 'reset'
            return answer
          end
          local kind, name = string.match(key, '^(%a+):?(.*)$')
          local value
          if kind == 'attempt' then
            value = redis.call('HGET', prefix .. 'attempts', name)
          elseif kind == 'node' then
            value = redis.call('HGET', prefix .. 'nodes', name)
          elseif kind == 'pace' then
            value = redis.call('HGET', prefix .. 'paces', name)
          elseif kind == 'preset' then
            value = redis.call('HGET', prefix .. 'presets', name)
          elseif kind == 'piece' then
            local job, number = string.match(name, '^(%d+)-(%d+)$')
            value = redis.call('HGET', prefix .. 'job:' .. job .. ':pieces', number)
          elseif kind == 'spec' then
            value = redis.call('HGETALL', prefix .. 'job:' .. name .. ':spec')
          else
            value = redis.call('HGETALL', prefix .. key)
          end
          table.insert(answer[5], key)
          table.insert(answer[6], value)
        end
      end
    end
  end
end
return answer
