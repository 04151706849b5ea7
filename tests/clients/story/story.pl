# The story (story.cpp) by Perl's syscall, for want of a binding (numbers of x86-64).
use strict;
use warnings;
use Errno qw(ETIMEDOUT);
use Fcntl qw(O_CREAT O_EXCL O_RDWR);

my ($open, $unlink, $timedsend, $timedreceive) = (240, 241, 242, 243);

sub call {
    my $result = syscall(shift, @_);
    die "$!\n" if $result < 0;
    return $result;
}

# By system call, names have no slash.
my ($name, $attr) = ("story", pack("q8", 0, 4, 64, 0, 0, 0, 0, 0));
my $queue = call($open, $name, O_CREAT | O_EXCL | O_RDWR, 0600, $attr);
my @out = (["low", 1], ["high", 9]);
call($timedsend, $queue, $_->[0], length $_->[0], $_->[1], 0) for @out;
my @said;
for (1 .. 2) {
    my ($text, $priority) = ("\0" x 64, pack("L", 0));
    my $length = call($timedreceive, $queue, $text, 64, $priority, 0);
    push @said, substr($text, 0, $length) . " " . unpack("L", $priority);
}
my ($text, $deadline) = ("\0" x 64, pack("q2", 1, 0));
push @said, "timeout" if syscall($timedreceive, $queue, $text, 64, 0, $deadline) < 0 && $! == ETIMEDOUT;
call($unlink, $name);
print "@said\n";
