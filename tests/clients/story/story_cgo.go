// The story (story.cpp) by cgo.
package main

// #include <fcntl.h>
// #include <mqueue.h>
// static mqd_t create(const char *name, long maxmsg, long msgsize)
// {
//     struct mq_attr attr = {.mq_maxmsg = maxmsg, .mq_msgsize = msgsize};
//     return mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &attr);
// }
import "C"

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

func check(what string, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, what, err)
		os.Exit(1)
	}
}

func main() {
	name := C.CString("/story")
	queue, err := C.create(name, 4, 64)
	if queue >= 0 {
		err = nil
	}
	check("mq_open", err)
	send := func(text string, priority C.uint) {
		if result, err := C.mq_send(queue, C.CString(text), C.size_t(len(text)), priority); result < 0 {
			check("mq_send", err)
		}
	}
	send("low", 1)
	send("high", 9)
	text := (*C.char)(C.CBytes(make([]byte, 64)))
	var priority C.uint
	said := []string{}
	for i := 0; i < 2; i++ {
		length, err := C.mq_receive(queue, text, 64, &priority)
		if length < 0 {
			check("mq_receive", err)
		}
		said = append(said, fmt.Sprint(C.GoStringN(text, C.int(length)), " ", priority))
	}
	deadline := C.struct_timespec{tv_sec: 1}
	if length, err := C.mq_timedreceive(queue, text, 64, nil, &deadline); length < 0 && err == syscall.ETIMEDOUT {
		said = append(said, "timeout")
	}
	C.mq_close(queue)
	C.mq_unlink(name)
	fmt.Println(strings.Join(said, " "))
}
