"""A job queue as a service would write it on posix_ipc: a dispatcher hands jobs with priorities to
forked workers, which answer on a second queue; a full job queue holds the dispatcher back."""

import os
import signal
import sys

import posix_ipc

WORKERS, JOBS = 3, 300
URGENT, NORMAL = 9, 1

signal.alarm(20)
name = f"/clients-jobs-{os.getpid()}"
jobs = posix_ipc.MessageQueue(name, posix_ipc.O_CREX, mode=0o600, max_messages=8, max_message_size=64)
answers = posix_ipc.MessageQueue(f"{name}-answers", posix_ipc.O_CREX, mode=0o600, max_messages=10, max_message_size=64)


def work():
    mine = posix_ipc.MessageQueue(name)
    done = 0
    while True:
        body, _ = mine.receive()
        if body == b"stop":
            answers.send(f"stopped {done}", priority=0)
            os._exit(0)
        answers.send(f"{int(body)} {int(body) ** 2}", priority=5)
        done += 1


# Urgent jobs overtake waiting ones; equals keep their order.
for body, priority in [("a", NORMAL), ("b", URGENT), ("c", NORMAL), ("d", URGENT)]:
    jobs.send(body, priority=priority)
assert jobs.current_messages == 4
order = [jobs.receive() for _ in range(4)]
assert order == [(b"b", URGENT), (b"d", URGENT), (b"a", NORMAL), (b"c", NORMAL)], order

workers = []
for _ in range(WORKERS):
    pid = os.fork()
    if pid == 0:
        work()
    workers.append(pid)

squares, sent, stopped = {}, 0, 0
while stopped < WORKERS:
    while sent < JOBS + WORKERS:
        try:
            jobs.send(str(sent) if sent < JOBS else "stop", timeout=0, priority=NORMAL)
            sent += 1
        except posix_ipc.BusyError:
            break
    body, _ = answers.receive(timeout=15)
    words = body.decode().split()
    if words[0] == "stopped":
        stopped += 1
    else:
        squares[int(words[0])] = int(words[1])
assert squares == {n: n * n for n in range(JOBS)}, len(squares)
for pid in workers:
    assert os.waitpid(pid, 0)[1] == 0

# Nobody answers any more: a wait with a limit ends by it.
try:
    answers.receive(timeout=0.05)
    sys.exit("received from an empty queue")
except posix_ipc.BusyError:
    pass
for queue in (jobs, answers):
    queue.close()
    queue.unlink()
try:
    posix_ipc.MessageQueue(name)
    sys.exit("opened an unlinked queue")
except posix_ipc.ExistentialError:
    pass
print("ok")
