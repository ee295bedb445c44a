/*
 * Loaded into QEMU before 9.0. It opens the file behind a private mapping for writing, though it never writes to it; with this it opens
 * a snapshot's memory, which all its machines share, for reading.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int open_file(const char *path, int flags, mode_t mode) {
	static const char name[] = "/memory.bin";
	size_t length = strlen(path);
	if ((flags & O_ACCMODE) == O_RDWR && length >= sizeof name && strcmp(path + length - sizeof name + 1, name) == 0)
		flags = (flags & ~O_ACCMODE) | O_RDONLY;
	return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
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
