"""mq_notify as Python programs use it: a signal that carries nothing but the news, and a callback in
another thread that registers again for the next message."""

import os
import signal
import threading

import posix_ipc

signal.alarm(20)
name = f"/clients-notify-{os.getpid()}"
queue = posix_ipc.MessageQueue(name, posix_ipc.O_CREX, max_messages=10, max_message_size=64)
queue.block = False

# By signal, from another process; one notification for two messages, since the queue was empty once.
seen = []
signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
queue.request_notification(signal.SIGUSR1)
if os.fork() == 0:
    other = posix_ipc.MessageQueue(name)
    other.send("one")
    other.send("two")
    os._exit(0)
assert os.wait()[1] == 0
assert seen == [signal.SIGUSR1], seen
assert [queue.receive()[0], queue.receive()[0]] == [b"one", b"two"]
queue.send("not announced: the registration was used up")
assert seen == [signal.SIGUSR1], seen
queue.receive()

# One registration a queue: others are refused until it is withdrawn.
def register_in_child():
    if os.fork() == 0:
        try:
            posix_ipc.MessageQueue(name).request_notification(signal.SIGUSR2)
        except posix_ipc.BusyError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.wait()[1]) == 0


queue.request_notification(signal.SIGUSR1)
assert not register_in_child()
queue.request_notification(None)
assert register_in_child()

# By thread, registering again each time.
got, news = [], threading.Semaphore(0)


def arrived(tag):
    queue.request_notification((arrived, tag + 1))
    while True:
        try:
            got.append((tag, queue.receive()[0]))
        except posix_ipc.BusyError:
            break
    news.release()


queue.request_notification((arrived, 0))
for n in range(20):
    queue.send(str(n))
    assert news.acquire(timeout=10)
assert got == [(n, str(n).encode()) for n in range(20)], got
queue.request_notification(None)
queue.close()
queue.unlink()
print("ok")
