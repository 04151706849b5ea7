-- The story (story.cpp) on LuaJIT's ffi.
local ffi = require 'ffi'
ffi.cdef [[
    struct attr { long flags, maxmsg, msgsize, curmsgs, pad[4]; };
    struct time { long sec, nsec; };
    int mq_open(const char *name, int flags, ...);
    int mq_send(int queue, const char *text, size_t length, unsigned priority);
    ssize_t mq_receive(int queue, char *text, size_t length, unsigned *priority);
    ssize_t mq_timedreceive(int queue, char *text, size_t length, unsigned *priority, const struct time *deadline);
    int mq_close(int queue);
    int mq_unlink(const char *name);
    char *strerror(int number);
]]

local function call(name, ...)
    local result = tonumber(ffi.C[name](...))
    if result < 0 then error(name .. ': ' .. ffi.string(ffi.C.strerror(ffi.errno()))) end
    return result
end

local attr = ffi.new('struct attr', 0, 4, 64)
-- O_CREAT | O_EXCL | O_RDWR
local queue = call('mq_open', '/story', 0x40 + 0x80 + 2, ffi.cast('int', 384), attr)
call('mq_send', queue, 'low', 3, 1)
call('mq_send', queue, 'high', 4, 9)
local text, priority, said = ffi.new('char[64]'), ffi.new('unsigned[1]'), {}
for _ = 1, 2 do
    local length = call('mq_receive', queue, text, 64, priority)
    said[#said + 1] = ffi.string(text, length) .. ' ' .. priority[0]
end
if ffi.C.mq_timedreceive(queue, text, 64, nil, ffi.new('struct time', 1, 0)) < 0 and ffi.errno() == 110 then
    said[#said + 1] = 'timeout'
end
call('mq_close', queue)
call('mq_unlink', '/story')
print(table.concat(said, ' '))
