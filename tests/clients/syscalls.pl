# Perl has no module for message queues in its core: scripts use the system calls by number.
use strict;
use warnings;
use Fcntl;
use POSIX qw(EAGAIN EEXIST ENOENT EMSGSIZE);

# x86-64
my %nr = (open => 240, unlink => 241, timedsend => 242, timedreceive => 243, getsetattr => 245);

alarm 20;
my $name = "clients-perl-$$";
my $attr = pack("l!8", 0, 3, 16, 0, 0, 0, 0, 0);
my $flags = O_CREAT | O_EXCL | O_RDWR | O_NONBLOCK;

my $queue = syscall($nr{open}, $name, $flags, 0600, $attr);
die "mq_open: $!" if $queue < 0;
die "created twice" if syscall($nr{open}, $name, $flags, 0600, $attr) >= 0 or $! != EEXIST;

for my $priority (1, 7, 4) {
    my $body = "prio $priority";
    syscall($nr{timedsend}, $queue, $body, length $body, $priority, 0) == 0 or die "mq_timedsend: $!";
}
my $extra = "extra";
die "sent to a full queue" if syscall($nr{timedsend}, $queue, $extra, 5, 0, 0) == 0 or $! != EAGAIN;
my $long = "x" x 17;
die "sent too long" if syscall($nr{timedsend}, $queue, $long, 17, 0, 0) == 0 or $! != EMSGSIZE;

my $now = "\0" x 64;
syscall($nr{getsetattr}, $queue, 0, $now) == 0 or die "mq_getsetattr: $!";
my (undef, $maxmsg, $msgsize, $curmsgs) = unpack("l!4", $now);
die "attributes $maxmsg $msgsize $curmsgs" unless $maxmsg == 3 and $msgsize == 16 and $curmsgs == 3;

# A child gets them by the descriptor it inherited, highest priority first.
my $child = fork // die "fork: $!";
if ($child == 0) {
    for my $want (7, 4, 1) {
        my ($body, $priority) = ("\0" x 16, "\0" x 4);
        my $length = syscall($nr{timedreceive}, $queue, $body, 16, $priority, 0);
        exit 1 unless $length == 6 and substr($body, 0, $length) eq "prio $want" and unpack("I", $priority) == $want;
    }
    exit 0;
}
waitpid $child, 0;
die "child: $?" if $?;

my ($body, $priority) = ("\0" x 16, "\0" x 4);
die "received from an empty queue" if syscall($nr{timedreceive}, $queue, $body, 16, $priority, 0) >= 0 or $! != EAGAIN;
syscall($nr{unlink}, $name) == 0 or die "mq_unlink: $!";
die "unlinked twice" if syscall($nr{unlink}, $name) == 0 or $! != ENOENT;
print "ok\n";
