/*
 * Loaded into a QEMU whose guest's memory is a private mapping of a snapshot's, a file that all its machines share. Before 9.0 it opens that for
 * writing, though it never writes to it; with this it opens it for reading. And of memory that its guest has no use for it would free the
 * place in the file before it drops the process's own copy; with this it believes to have done so.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct stat memory;
static bool known;

static int open_file(const char *path, int flags, mode_t mode) {
	static const char name[] = "/memory.bin";
	size_t length = strlen(path);
	bool is_memory = length >= sizeof name && strcmp(path + length - sizeof name + 1, name) == 0;
	if (is_memory && (flags & O_ACCMODE) == O_RDWR) flags = (flags & ~O_ACCMODE) | O_RDONLY;
	int fd = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
	if (is_memory && fd >= 0) known = fstat(fd, &memory) == 0;
	return fd;
}

#define DEFINE(NAME, MORE)                                         \
	__attribute__((visibility("default"))) int NAME(const char *path, int flags, ...) { \
		mode_t mode = 0;                                           \
		if ((flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE) { \
			va_list more;                                          \
			va_start(more, flags);                                 \
			mode = va_arg(more, mode_t);                           \
			va_end(more);                                          \
		}                                                          \
		return open_file(path, flags | MORE, mode);                \
	}
DEFINE(open, 0)
DEFINE(open64, O_LARGEFILE)
DEFINE(__open64_2, O_LARGEFILE)

static int free_place(int fd, int mode, off64_t from, off64_t bytes) {
	struct stat file;
	if (known && (mode & FALLOC_FL_PUNCH_HOLE) != 0 && fstat(fd, &file) == 0 && file.st_dev == memory.st_dev &&
	    file.st_ino == memory.st_ino)
		return 0;
	return syscall(SYS_fallocate, fd, mode, from, bytes);
}

__attribute__((visibility("default"))) int fallocate(int fd, int mode, off_t from, off_t bytes) {
	return free_place(fd, mode, from, bytes);
}
__attribute__((visibility("default"))) int fallocate64(int fd, int mode, off64_t from, off64_t bytes) {
	return free_place(fd, mode, from, bytes);
}
