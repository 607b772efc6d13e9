"""The Lua scripts of the Redis log; Redis runs each of them as one step.

The keys, each after `PREFIX`:

- `run:RUN`: a hash: the header, `process`, `next` (index), `ended`, `stopped`, `lease_until` (ms)
- `events:RUN`: a stream whose entry ids are index + 1
- `id:OWNER:SESSION`, `shared:OWNER:FINGERPRINT`: the run that holds them
- `running`: a hash of runs to their processes; `ended`: a sorted set of runs by when they ended
- `process:PROCESS`: exists while the process is alive; `inbox:PROCESS`: the runs it should stop

Owners and session ids hold no colon, so no two pairs make the same key.
"""

from __future__ import annotations

PREFIX = "precis:"

_COMMON = (
    f"local P = '{PREFIX}'"
    + """
local HEADER = {'run', 'session_id', 'kind', 'owner', 'fingerprint'}
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function header(run)
  local values = redis.call('HMGET', P .. 'run:' .. run, unpack(HEADER))
  if values[1] then return values end
  return false
end
"""
)


# PROCESS TTL_MS EXPIRE_S SHARED RUN SESSION_ID KIND OWNER FINGERPRINT -> the header of the holder,
# or nil when it is this run.
OPEN = (
    _COMMON
    + """
local process, ttl_ms, expire_s, shared = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local run, session_id, owner, fingerprint = ARGV[5], ARGV[6], ARGV[8], ARGV[9]
redis.call('SET', P .. 'process:' .. process, '1', 'PX', ttl_ms)
local id_key = P .. 'id:' .. owner .. ':' .. session_id
local shared_key = P .. 'shared:' .. owner .. ':' .. fingerprint
local function running(key)
  local holder = redis.call('GET', key)
  if not holder then return false end
  local state = redis.call('HMGET', P .. 'run:' .. holder, 'process', 'ended', 'stopped')
  if not state[1] or state[2] or state[3] then return false end
  if redis.call('EXISTS', P .. 'process:' .. state[1]) == 0 then return false end
  return holder
end
local holder = running(id_key) or (shared and running(shared_key))
if holder then return header(holder) end
redis.call('HSET', P .. 'run:' .. run, 'run', run, 'session_id', session_id, 'kind', ARGV[7],
  'owner', owner, 'fingerprint', fingerprint, 'process', process, 'next', 0, 'id_key', id_key)
redis.call('EXPIRE', P .. 'run:' .. run, expire_s)
redis.call('SET', id_key, run, 'EX', expire_s)
if shared then
  redis.call('HSET', P .. 'run:' .. run, 'shared_key', shared_key)
  redis.call('SET', shared_key, run, 'EX', expire_s)
end
redis.call('HSET', P .. 'running', run, process)
redis.call('EXPIRE', P .. 'running', expire_s)
return false
"""
)

# OWNER SESSION_ID -> the header of the newest run, or nil.
FIND = (
    _COMMON
    + """
local run = redis.call('GET', P .. 'id:' .. ARGV[1] .. ':' .. ARGV[2])
if not run then return false end
return header(run)
"""
)

# RUN EXPIRE_S KEPT then KIND DATA TERMINAL of each draft -> {last index, 1 if anything was taken},
# or nil for an unknown run.
APPEND = (
    _COMMON
    + """
local run_key, events_key = P .. 'run:' .. ARGV[1], P .. 'events:' .. ARGV[1]
local state = redis.call('HMGET', run_key, 'next', 'ended', 'id_key', 'shared_key')
if not state[1] then return false end
local index = tonumber(state[1])
if state[2] or #ARGV < 4 then return {index - 1, 0} end
local first, ended = index, false
for i = 4, #ARGV, 3 do
  redis.call('XADD', events_key, 'MAXLEN', '~', ARGV[3], string.format('%d-0', index + 1),
    'kind', ARGV[i], 'data', ARGV[i + 1], 'terminal', ARGV[i + 2])
  index = index + 1
  if ARGV[i + 2] == '1' then ended = true break end
end
redis.call('HSET', run_key, 'next', index)
if first == 0 then redis.call('EXPIRE', events_key, ARGV[2]) end
if ended then
  redis.call('HSET', run_key, 'ended', 1)
  redis.call('HDEL', P .. 'running', ARGV[1])
  redis.call('ZADD', P .. 'ended', now_ms(), ARGV[1])
  for _, key in ipairs({run_key, events_key, P .. 'ended'}) do
    redis.call('EXPIRE', key, ARGV[2])
  end
  if redis.call('GET', state[3]) == ARGV[1] then redis.call('EXPIRE', state[3], ARGV[2]) end
  if state[4] and redis.call('GET', state[4]) == ARGV[1] then redis.call('DEL', state[4]) end
end
return {index - 1, 1}
"""
)

# RUN AFTER LIMIT -> {next index, 1 if ended, entries}, or nil for an unknown run.
READ = (
    _COMMON
    + """
local state = redis.call('HMGET', P .. 'run:' .. ARGV[1], 'next', 'ended')
if not state[1] then return false end
local from = string.format('%d-0', ARGV[2] + 2)
local entries = redis.call('XRANGE', P .. 'events:' .. ARGV[1], from, '+', 'COUNT', ARGV[3])
return {tonumber(state[1]), state[2] and 1 or 0, entries}
"""
)

# OWNER SESSION_ID
REQUEST_STOP = (
    _COMMON
    + """
local run = redis.call('GET', P .. 'id:' .. ARGV[1] .. ':' .. ARGV[2])
if not run then return end
local state = redis.call('HMGET', P .. 'run:' .. run, 'process', 'ended', 'stopped')
if not state[1] or state[2] or state[3] then return end
redis.call('HSET', P .. 'run:' .. run, 'stopped', 1)
redis.call('RPUSH', P .. 'inbox:' .. state[1], run)
redis.call('EXPIRE', P .. 'inbox:' .. state[1], 3600)
"""
)

# RUN FOR_MS
RENEW_LEASE = (
    _COMMON
    + """
local key, lease_until = P .. 'run:' .. ARGV[1], now_ms() + ARGV[2]
if redis.call('EXISTS', key) == 0 then return end
local previous = redis.call('HGET', key, 'lease_until')
if not previous or tonumber(previous) < lease_until then
  redis.call('HSET', key, 'lease_until', string.format('%d', lease_until))
end
"""
)

# RUN -> how many ms the lease has left, or nil when there never was one.
LEASE_LEFT = (
    _COMMON
    + """
local lease_until = redis.call('HGET', P .. 'run:' .. ARGV[1], 'lease_until')
if not lease_until then return false end
return tonumber(lease_until) - now_ms()
"""
)

# PROCESS TTL_MS FINDS_LOST -> headers of running runs of dead processes; none unless FINDS_LOST is
# 1, since after Redis was away a living process may not have set its key again yet.
HEARTBEAT = (
    _COMMON
    + """
redis.call('SET', P .. 'process:' .. ARGV[1], '1', 'PX', ARGV[2])
if ARGV[3] ~= '1' then return {} end
local alive, lost = {[ARGV[1]] = true}, {}
local running = redis.call('HGETALL', P .. 'running')
for i = 1, #running, 2 do
  local run, process = running[i], running[i + 1]
  if alive[process] == nil then
    alive[process] = redis.call('EXISTS', P .. 'process:' .. process) == 1
  end
  if not alive[process] then
    local values = header(run)
    if values then lost[#lost + 1] = values else redis.call('HDEL', P .. 'running', run) end
  end
end
return lost
"""
)

# PROCESS EXPIRE_S: what runs in this process expires that much later.
EXTEND_EXPIRY = (
    _COMMON
    + """
local running = redis.call('HGETALL', P .. 'running')
redis.call('EXPIRE', P .. 'running', ARGV[2])
for i = 1, #running, 2 do
  if running[i + 1] == ARGV[1] then
    local run_key = P .. 'run:' .. running[i]
    local state = redis.call('HMGET', run_key, 'id_key', 'shared_key')
    local events_key = P .. 'events:' .. running[i]
    for _, key in ipairs({run_key, events_key, state[1] or nil, state[2] or nil}) do
      redis.call('EXPIRE', key, ARGV[2])
    end
  end
end
"""
)

# OLDER_THAN_MS LIMIT -> how many ended runs were dropped.
SWEEP = (
    _COMMON
    + """
local runs = redis.call('ZRANGEBYSCORE', P .. 'ended', '-inf', now_ms() - ARGV[1],
  'LIMIT', 0, ARGV[2])
for _, run in ipairs(runs) do
  local id_key = redis.call('HGET', P .. 'run:' .. run, 'id_key')
  if id_key and redis.call('GET', id_key) == run then redis.call('DEL', id_key) end
  redis.call('UNLINK', P .. 'run:' .. run, P .. 'events:' .. run)
  redis.call('ZREM', P .. 'ended', run)
end
return #runs
"""
)
