"""The story (story.cpp) on ctypes of Python's standard library."""
import ctypes
import errno
import os

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


attr = (ctypes.c_long * 8)(0, 4, 64)
queue = call("mq_open", b"/story", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600, attr)
call("mq_send", queue, b"low", ctypes.c_size_t(3), 1)
call("mq_send", queue, b"high", ctypes.c_size_t(4), 9)
said, text, priority = [], ctypes.create_string_buffer(64), ctypes.c_uint()
for _ in range(2):
    length = call("mq_receive", queue, text, ctypes.c_size_t(64), ctypes.byref(priority))
    said.append(f"{text.raw[:length].decode()} {priority.value}")
try:
    call("mq_timedreceive", queue, text, ctypes.c_size_t(64), None, (ctypes.c_long * 2)(1, 0))
except OSError as error:
    said.append("timeout" if error.errno == errno.ETIMEDOUT else str(error))
call("mq_close", queue)
call("mq_unlink", b"/story")
print(*said)
