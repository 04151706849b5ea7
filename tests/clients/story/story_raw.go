// The beginning of the story (story.cpp) by system calls that Go makes itself.
package main

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

func main() {
	name, _ := syscall.BytePtrFromString("story")
	attr := [8]int64{0, 4, 64}
	flags := uintptr(syscall.O_CREAT | syscall.O_EXCL | syscall.O_RDWR)
	pointer := uintptr(unsafe.Pointer(&attr))
	_, _, errno := syscall.Syscall6(240, uintptr(unsafe.Pointer(name)), flags, 0600, pointer, 0, 0)
	if errno != 0 {
		fmt.Println("mq_open:", errno)
		os.Exit(1)
	}
	syscall.Syscall(241, uintptr(unsafe.Pointer(name)), 0, 0)
	fmt.Println("opened")
}
