<?php
// The story (story.cpp) on PHP's FFI; an argument names the library to look in.
$libc = FFI::cdef('
    struct attr { long flags, maxmsg, msgsize, curmsgs, pad[4]; };
    struct time { long sec, nsec; };
    int mq_open(const char *name, int flags, ...);
    int mq_send(int queue, const char *text, size_t length, unsigned priority);
    long mq_receive(int queue, char *text, size_t length, unsigned *priority);
    long mq_timedreceive(int queue, char *text, size_t length, unsigned *priority, const struct time *deadline);
    int mq_close(int queue);
    int mq_unlink(const char *name);
    int *__errno_location(void);
', $argv[1] ?? null);

function checked(string $what, int $result): int
{
    global $libc;
    if ($result < 0) {
        fprintf(STDERR, "%s: errno %d\n", $what, $libc->__errno_location()[0]);
        exit(1);
    }
    return $result;
}

$attr = $libc->new('struct attr');
$attr->maxmsg = 4;
$attr->msgsize = 64;
// O_CREAT | O_EXCL | O_RDWR
$queue = checked('mq_open', $libc->mq_open('/story', 0100 | 0200 | 2, 0600, FFI::addr($attr)));
checked('mq_send', $libc->mq_send($queue, 'low', 3, 1));
checked('mq_send', $libc->mq_send($queue, 'high', 4, 9));
$text = $libc->new('char[64]');
$priority = $libc->new('unsigned');
$said = [];
for ($i = 0; $i < 2; $i++) {
    $length = checked('mq_receive', $libc->mq_receive($queue, $text, 64, FFI::addr($priority)));
    $said[] = FFI::string($text, $length) . ' ' . $priority->cdata;
}
$deadline = $libc->new('struct time');
$deadline->sec = 1;
if ($libc->mq_timedreceive($queue, $text, 64, null, FFI::addr($deadline)) < 0 && $libc->__errno_location()[0] === 110) {
    $said[] = 'timeout';
}
checked('mq_close', $libc->mq_close($queue));
checked('mq_unlink', $libc->mq_unlink('/story'));
echo implode(' ', $said), "\n";
