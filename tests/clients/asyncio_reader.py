"""Message queue descriptors in asyncio's event loop, by epoll, poll and select: add_reader wakes for messages from another
process, add_writer for room in a full queue, and both go quiet when there is nothing to do."""

import asyncio
import os
import selectors
import signal

import posix_ipc

MESSAGES = 500
signal.alarm(25)
name = f"/clients-asyncio-{os.getpid()}"


def produce():
    queue = posix_ipc.MessageQueue(name)
    for n in range(MESSAGES):
        queue.send(str(n))
    os._exit(0)


async def main():
    loop = asyncio.get_running_loop()
    queue = posix_ipc.MessageQueue(name, posix_ipc.O_CREX, max_messages=10, max_message_size=64)
    queue.block = False

    # Quiet while empty.
    calls = []
    loop.add_reader(queue.fileno(), calls.append, "readable")
    await asyncio.sleep(0.05)
    assert not calls, calls
    loop.remove_reader(queue.fileno())

    got, done = [], loop.create_future()

    def readable():
        # One message an event: what is left must wake the loop again.
        got.append(int(queue.receive()[0]))
        if len(got) == MESSAGES:
            done.set_result(None)

    loop.add_reader(queue.fileno(), readable)
    child = os.fork()
    if child == 0:
        produce()
    await asyncio.wait_for(done, 15)
    assert got == list(range(MESSAGES))
    assert os.waitpid(child, 0)[1] == 0
    loop.remove_reader(queue.fileno())

    # A full queue is not writable until somebody receives.
    for n in range(10):
        queue.send("x")
    loop.add_writer(queue.fileno(), calls.append, "writable")
    await asyncio.sleep(0.05)
    assert not calls, calls
    loop.remove_writer(queue.fileno())
    room = loop.create_future()
    loop.add_writer(queue.fileno(), lambda: room.done() or room.set_result(None))
    child = os.fork()
    if child == 0:
        posix_ipc.MessageQueue(name).receive()
        os._exit(0)
    await asyncio.wait_for(room, 15)
    assert os.waitpid(child, 0)[1] == 0
    loop.remove_writer(queue.fileno())
    queue.send("fits")
    queue.close()
    posix_ipc.unlink_message_queue(name)


for selector in (selectors.EpollSelector, selectors.PollSelector, selectors.SelectSelector):
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector())) as runner:
        runner.run(main())
    print(f"{selector.__name__} ok")
