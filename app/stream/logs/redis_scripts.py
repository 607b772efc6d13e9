"""The steps that Redis does as one: each is a Lua script, run whole or not at all.

What is where: `run:RUN` a hash (who it is, its process, `next`, `ended`, `stopped`, `attended`),
`events:RUN` a stream whose ids are index + 1, `id:OWNER:SESSION` and `shared:OWNER:FINGERPRINT` the
run that holds them, `running` a hash of runs to processes, `ended` runs by when they ended,
`process:PROCESS` there while the process is alive, `inbox:PROCESS` the runs it should stop.
Owners and session ids hold no colon, so no two pairs make the same key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

PREFIX = "precis:"

_COMMON = (
    f"local P = '{PREFIX}'"
    + """
local WHO = {'run', 'session_id', 'kind', 'owner', 'fingerprint'}
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function header(run)
  local who = redis.call('HMGET', P .. 'run:' .. run, unpack(WHO))
  if who[1] then return who end
  return false
end
"""
)


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the name by which Redis knows it."""

    text: str
    sha: str


def _script(body: str) -> Script:
    text = _COMMON + body
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


# PROCESS LIFE_MS EXPIRE_S SHARED RUN SESSION_ID KIND OWNER FINGERPRINT -> the header of the holder,
# or nil when it is this run.
OPEN = _script("""
local process, life_ms, expire_s, shared = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local run, session_id, owner, fingerprint = ARGV[5], ARGV[6], ARGV[8], ARGV[9]
redis.call('SET', P .. 'process:' .. process, '1', 'PX', life_ms)
local id_key = P .. 'id:' .. owner .. ':' .. session_id
local shared_key = P .. 'shared:' .. owner .. ':' .. fingerprint
local function running(key)
  local held = redis.call('GET', key)
  if not held then return false end
  local is = redis.call('HMGET', P .. 'run:' .. held, 'process', 'ended', 'stopped')
  if not is[1] or is[2] or is[3] then return false end
  if redis.call('EXISTS', P .. 'process:' .. is[1]) == 0 then return false end
  return held
end
local held = running(id_key) or (shared and running(shared_key))
if held then return header(held) end
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
""")

# OWNER SESSION_ID -> the header of the newest run, or nil.
FIND = _script("""
local run = redis.call('GET', P .. 'id:' .. ARGV[1] .. ':' .. ARGV[2])
if not run then return false end
return header(run)
""")

# RUN EXPIRE_S KEPT then KIND DATA TERMINAL of each draft -> {last index, 1 if anything was taken},
# or nil for an unknown run.
APPEND = _script("""
local run_key, events_key = P .. 'run:' .. ARGV[1], P .. 'events:' .. ARGV[1]
local is = redis.call('HMGET', run_key, 'next', 'ended', 'id_key', 'shared_key')
if not is[1] then return false end
local index = tonumber(is[1])
if is[2] or #ARGV < 4 then return {index - 1, 0} end
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
  if redis.call('GET', is[3]) == ARGV[1] then redis.call('EXPIRE', is[3], ARGV[2]) end
  if is[4] and redis.call('GET', is[4]) == ARGV[1] then redis.call('DEL', is[4]) end
end
return {index - 1, 1}
""")

# RUN AFTER LIMIT -> {next index, 1 if ended, entries}, or nil for an unknown run.
READ = _script("""
local is = redis.call('HMGET', P .. 'run:' .. ARGV[1], 'next', 'ended')
if not is[1] then return false end
local from = string.format('%d-0', ARGV[2] + 2)
local entries = redis.call('XRANGE', P .. 'events:' .. ARGV[1], from, '+', 'COUNT', ARGV[3])
return {tonumber(is[1]), is[2] and 1 or 0, entries}
""")

# OWNER SESSION_ID
STOP = _script("""
local run = redis.call('GET', P .. 'id:' .. ARGV[1] .. ':' .. ARGV[2])
if not run then return end
local is = redis.call('HMGET', P .. 'run:' .. run, 'process', 'ended', 'stopped')
if not is[1] or is[2] or is[3] then return end
redis.call('HSET', P .. 'run:' .. run, 'stopped', 1)
redis.call('RPUSH', P .. 'inbox:' .. is[1], run)
redis.call('EXPIRE', P .. 'inbox:' .. is[1], 3600)
""")

# RUN FOR_MS
ATTEND = _script("""
local key, til = P .. 'run:' .. ARGV[1], now_ms() + ARGV[2]
if redis.call('EXISTS', key) == 0 then return end
local was = redis.call('HGET', key, 'attended')
if not was or tonumber(was) < til then
  redis.call('HSET', key, 'attended', string.format('%d', til))
end
""")

# RUN -> for how many ms more it is attended, or nil when it never was.
ATTENDED = _script("""
local til = redis.call('HGET', P .. 'run:' .. ARGV[1], 'attended')
if not til then return false end
return tonumber(til) - now_ms()
""")

# PROCESS LIFE_MS JUDGES -> headers of running runs of dead processes. A process that does not judge
# yet, since all may have been away together, only shows itself.
HEARTBEAT = _script("""
redis.call('SET', P .. 'process:' .. ARGV[1], '1', 'PX', ARGV[2])
if ARGV[3] ~= '1' then return {} end
local lives, lost = {[ARGV[1]] = true}, {}
local running = redis.call('HGETALL', P .. 'running')
for i = 1, #running, 2 do
  local run, process = running[i], running[i + 1]
  if lives[process] == nil then
    lives[process] = redis.call('EXISTS', P .. 'process:' .. process) == 1
  end
  if not lives[process] then
    local who = header(run)
    if who then lost[#lost + 1] = who else redis.call('HDEL', P .. 'running', run) end
  end
end
return lost
""")

# PROCESS EXPIRE_S: what runs in this process does not expire.
PROLONG = _script("""
local running = redis.call('HGETALL', P .. 'running')
redis.call('EXPIRE', P .. 'running', ARGV[2])
for i = 1, #running, 2 do
  if running[i + 1] == ARGV[1] then
    local run_key = P .. 'run:' .. running[i]
    local is = redis.call('HMGET', run_key, 'id_key', 'shared_key')
    for _, key in ipairs({run_key, P .. 'events:' .. running[i], is[1] or nil, is[2] or nil}) do
      redis.call('EXPIRE', key, ARGV[2])
    end
  end
end
""")

# OLDER_THAN_MS LIMIT -> how many ended runs were dropped.
SWEEP = _script("""
local runs = redis.call('ZRANGEBYSCORE', P .. 'ended', '-inf', now_ms() - ARGV[1],
  'LIMIT', 0, ARGV[2])
for _, run in ipairs(runs) do
  local id_key = redis.call('HGET', P .. 'run:' .. run, 'id_key')
  if id_key and redis.call('GET', id_key) == run then redis.call('DEL', id_key) end
  redis.call('UNLINK', P .. 'run:' .. run, P .. 'events:' .. run)
  redis.call('ZREM', P .. 'ended', run)
end
return #runs
""")
