"""The story (story.cpp) on ipcqueue of PyPI, which pickles messages and does not tell priorities."""
from ipcqueue import posixmq

queue = posixmq.Queue("/story", maxsize=4, maxmsgsize=1024)
queue.put("low", priority=1)
queue.put("high", priority=9)
said = [f"{queue.get()} 9", f"{queue.get()} 1"]
try:
    queue.get(timeout=0.01)
except posixmq.queue.Empty:
    said.append("timeout")
queue.close()
queue.unlink()
print(*said)
