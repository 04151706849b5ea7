// The story (story.cpp) on koffi of npm.
const fs = require('fs');
const os = require('os');
const koffi = require('koffi');

const libc = koffi.load('libc.so.6');
const mq_open = libc.func('int mq_open(const char *name, int flags, ...)');
const mq_send = libc.func('int mq_send(int queue, const char *text, size_t length, unsigned int priority)');
const mq_receive = libc.func('long mq_receive(int queue, void *text, size_t length, _Out_ unsigned int *priority)');
const mq_timedreceive = libc.func('long mq_timedreceive(int queue, void *text, size_t length, void *priority, void *deadline)');
const mq_close = libc.func('int mq_close(int queue)');
const mq_unlink = libc.func('int mq_unlink(const char *name)');

function call(what, result) {
    if (result < 0) throw new Error(`${what}: errno ${koffi.errno()}`);
    return result;
}

const { O_CREAT, O_EXCL, O_RDWR } = fs.constants;
const attr = Buffer.from(new BigInt64Array([0n, 4n, 64n, 0n, 0n, 0n, 0n, 0n]).buffer);
const queue = call('mq_open', mq_open('/story', O_CREAT | O_EXCL | O_RDWR, 'unsigned int', 0o600, 'void *', attr));
call('mq_send', mq_send(queue, 'low', 3, 1));
call('mq_send', mq_send(queue, 'high', 4, 9));
const said = [];
const text = Buffer.alloc(64);
for (let i = 0; i < 2; i++) {
    const priority = [0];
    const length = call('mq_receive', mq_receive(queue, text, 64, priority));
    said.push(`${text.toString('utf8', 0, length)} ${priority[0]}`);
}
const deadline = Buffer.from(new BigInt64Array([1n, 0n]).buffer);
if (mq_timedreceive(queue, text, 64, null, deadline) < 0 && koffi.errno() === os.constants.errno.ETIMEDOUT) said.push('timeout');
call('mq_close', mq_close(queue));
call('mq_unlink', mq_unlink('/story'));
console.log(said.join(' '));
