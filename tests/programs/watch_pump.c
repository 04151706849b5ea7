/* watch_pump send NAME COUNT PRIORITIES WHO: sends "WHO-PRIORITY-i" COUNT times.
 * watch_pump receive NAME COUNT: receives so many.
 * For tests/watch.rs, which looks on. */
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    int sends = strcmp(argv[1], "send") == 0;
    long count = atol(argv[3]);
    mqd_t queue = mq_open(argv[2], sends ? O_WRONLY : O_RDONLY);
    if (queue == (mqd_t)-1) {
        perror("mq_open");
        return 1;
    }
    static char text[1 << 16];
    for (long i = 0; i < count; i++) {
        if (sends) {
            unsigned priority = i % atol(argv[4]);
            int len = snprintf(text, sizeof text, "%s-%u-%ld", argv[5], priority, i);
            if (mq_send(queue, text, len, priority) != 0) {
                perror("mq_send");
                return 1;
            }
        } else if (mq_receive(queue, text, sizeof text, NULL) < 0) {
            perror("mq_receive");
            return 1;
        }
    }
    return 0;
}
