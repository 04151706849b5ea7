"""The mq_* functions as foreign function interfaces reach them: looked up by name at run time, in the
program's scope and in libc itself, and by system call number through syscall()."""

import ctypes
import os
import signal

signal.alarm(20)


class Attr(ctypes.Structure):
    _fields_ = [(f, ctypes.c_long) for f in ("flags", "maxmsg", "msgsize", "curmsgs")] + [("pad", ctypes.c_long * 4)]


def check(result, what):
    if result == -1:
        raise OSError(ctypes.get_errno(), what)
    return result


def round_trip(lib, name):
    lib.mq_receive.restype = ctypes.c_ssize_t
    attr = Attr(maxmsg=4, msgsize=32)
    queue = check(lib.mq_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600, ctypes.byref(attr)), "mq_open")
    check(lib.mq_send(queue, b"low", ctypes.c_size_t(3), 1), "mq_send")
    check(lib.mq_send(queue, b"high", ctypes.c_size_t(4), 2), "mq_send")
    now = Attr()
    check(lib.mq_getattr(queue, ctypes.byref(now)), "mq_getattr")
    assert (now.maxmsg, now.msgsize, now.curmsgs) == (4, 32, 2)
    buffer, priority = ctypes.create_string_buffer(32), ctypes.c_uint()
    for want in ((b"high", 2), (b"low", 1)):
        length = check(lib.mq_receive(queue, buffer, ctypes.c_size_t(32), ctypes.byref(priority)), "mq_receive")
        assert (buffer.raw[:length], priority.value) == want
    check(lib.mq_close(queue), "mq_close")
    check(lib.mq_unlink(name), "mq_unlink")


def by_number(libc, name):
    # x86-64: mq_open 240, mq_unlink 241, mq_timedsend 242, mq_timedreceive 243; names without the slash.
    n = ctypes.c_long
    attr = Attr(maxmsg=4, msgsize=32)
    queue = check(libc.syscall(n(240), name, n(os.O_CREAT | os.O_RDWR), n(0o600), ctypes.byref(attr)), "mq_open")
    check(libc.syscall(n(242), n(queue), b"number", n(6), n(3), None), "mq_timedsend")
    buffer, priority = ctypes.create_string_buffer(32), ctypes.c_uint()
    libc.syscall.restype = n
    assert check(libc.syscall(n(243), n(queue), buffer, n(32), ctypes.byref(priority), None), "mq_timedreceive") == 6
    assert (buffer.value, priority.value) == (b"number", 3)
    check(libc.syscall(n(241), name), "mq_unlink")
    os.close(queue)


name = f"/clients-ctypes-{os.getpid()}".encode()
for where in (None, "libc.so.6", "librt.so.1"):
    lib = ctypes.CDLL(where, use_errno=True)
    if where == "librt.so.1" and not hasattr(lib, "mq_open"):
        continue  # glibc 2.34 moved them to libc and left an empty library
    round_trip(lib, name)
by_number(ctypes.CDLL(None, use_errno=True), name[1:])
print("ok")
