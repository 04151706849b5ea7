"""The story (story.cpp) on posix_ipc of PyPI."""
import posix_ipc

queue = posix_ipc.MessageQueue("/story", posix_ipc.O_CREX, max_messages=4, max_message_size=64)
queue.send(b"low", priority=1)
queue.send(b"high", priority=9)
said = [f"{text.decode()} {priority}" for text, priority in (queue.receive(), queue.receive())]
try:
    queue.receive(timeout=0.01)
except posix_ipc.BusyError:
    said.append("timeout")
queue.close()
posix_ipc.unlink_message_queue("/story")
print(*said)
