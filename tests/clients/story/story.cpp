// The story that each of these clients tells: a queue of 4 messages of 64 bytes; a low and a high priority go in
// and come out in order; the next is waited for in vain; the name goes. (C++: exceptions, a thread that receives.)
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <fcntl.h>
#include <mqueue.h>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

static long checked(long result, const char *what)
{
	if (result < 0)
		throw std::system_error(errno, std::generic_category(), what);
	return result;
}

int main()
try {
	mq_attr attr{};
	attr.mq_maxmsg = 4;
	attr.mq_msgsize = 64;
	mqd_t queue = checked(mq_open("/story", O_CREAT | O_EXCL | O_RDWR, 0600, &attr), "mq_open");
	checked(mq_send(queue, "low", 3, 1), "mq_send");
	checked(mq_send(queue, "high", 4, 9), "mq_send");
	std::string said;
	std::thread receiver([&] {
		for (int i = 0; i < 2; i++) {
			char text[64];
			unsigned priority;
			long length = checked(mq_receive(queue, text, sizeof text, &priority), "mq_receive");
			said += std::string(text, length) + " " + std::to_string(priority) + " ";
		}
	});
	receiver.join();
	timespec deadline;
	clock_gettime(CLOCK_REALTIME, &deadline);
	try {
		char text[64];
		checked(mq_timedreceive(queue, text, sizeof text, nullptr, &deadline), "mq_timedreceive");
	} catch (const std::system_error &error) {
		said += error.code() == std::errc::timed_out ? "timeout" : error.what();
	}
	checked(mq_close(queue), "mq_close");
	checked(mq_unlink("/story"), "mq_unlink");
	std::puts(said.c_str());
} catch (const std::exception &error) {
	std::fprintf(stderr, "%s\n", error.what());
	return 1;
}
