/*
 * Starts a program where only the files that it needs exist: in a mount, network, IPC and UTS namespace of its own, on a root that holds the
 * system's programs (read-only), some devices, and what the arguments name, each under its own path. It becomes the program, so pid and
 * parent stay.
 *
 *     cell DIR [-n FILE] [-r FILE | -o FILE | -w FILE | -l FILE | -s FILE | -a PATH | -f BYTES]... -- PROGRAM ARGUMENT...
 *
 *   DIR      the working directory, to read
 *   -n FILE  a network namespace that is there already, in place of one of its own
 *   -r FILE  a file or directory to read
 *   -o FILE  the same, where it is there
 *   -w FILE  one to write, also below DIR. Its name stays what it is: nobody who follows names in DIR can be led elsewhere.
 *   -l FILE  a library that is loaded into the program. Its own path may hold what separates names there.
 *   -s FILE  one of the system's, to read where it is there: as it is, also where it is a link to another one
 *   -a PATH  where the file of -r, -o or -w before it is shown, if not under its own path
 *
 *   -f BYTES no file becomes larger by what it writes, and it makes none but sockets (the latter where the kernel has Landlock)
 *
 * All paths are absolute.
 *
 * As root the program gets a user of its own: USERS plus its pid, which no other living process has, and who gets what is to be written.
 * As any other user the namespaces are made in a user namespace, in which that user is itself; so that the program cannot send signals to that
 * user's other processes, it is in a domain of Landlock, where the kernel has that (6.12). What else changes another process by its number (limits,
 * priorities, processors) a filter of system calls refuses.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/nsfs.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The same numbers on all machines; older headers do not have them. */
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_restrict_self 446
#endif

/* What a system call is counted as, and those that count otherwise in the same process. */
#if defined(__x86_64__)
#define NATIVE AUDIT_ARCH_X86_64
#define FOREIGN 0x40000000u
#elif defined(__aarch64__)
#define NATIVE AUDIT_ARCH_AARCH64
#define FOREIGN 0xffffffffu
#else
#error "the filter of system calls is not written for this processor"
#endif

/* Above what systemd gives to containers and below what is no user (systemd, "Users, Groups, UIDs and GIDs"). */
#define USERS 0x70000000u
/* A place to put the new root on; every system has it. */
#define PLACE "/tmp"
#define LIBRARY "/preload.so"

static void fail(const char *what, const char *which) {
	fprintf(stderr, "cell: %s %s: %s\n", what, which, strerror(errno));
	exit(125);
}

static void write_file(const char *path, const char *text) {
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) fail("write", path);
	close(fd);
}

/* What is to be seen, opened before anything is covered. */
struct part {
	const char *path;
	int fd;
	int writable;
};
static struct part parts[64];
static int count;

/* Another one would be made beside the new root, on the host. */
static const char *absolute(const char *path) {
	if (path[0] == '/') return path;
	errno = EINVAL;
	fail("add", path);
	return NULL;
}

/* @returns NULL: it is not there, and need not be */
static struct part *add(const char *path, int writable, int optional) {
	if (count == (int)(sizeof parts / sizeof *parts)) {
		errno = E2BIG;
		fail("add", path);
	}
	int fd = open(absolute(path), O_PATH | O_CLOEXEC);
	if (fd < 0 && optional) return NULL;
	if (fd < 0) fail("open", path);
	parts[count] = (struct part){path, fd, writable};
	return &parts[count++];
}

/* Makes the directories above `path` in the new root, and returns its name there. */
static const char *above(const char *path) {
	static char at[PATH_MAX];
	if (snprintf(at, sizeof at, PLACE "%s", path) >= (int)sizeof at) {
		errno = ENAMETOOLONG;
		fail("mkdir", path);
	}
	for (char *slash = at + strlen(PLACE) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
		*slash = 0;
		if (mkdir(at, 0755) != 0 && errno != EEXIST && errno != EROFS) fail("mkdir", at);
		*slash = '/';
	}
	return at;
}

/* A link of the system's, which is made again. */
static void show_link(const char *path) {
	char target[PATH_MAX];
	ssize_t length = readlink(path, target, sizeof target - 1);
	if (length >= 0) target[length] = 0;
	if (length < 0 || symlink(target, above(path)) != 0) fail("link", path);
}

/*
 * What the program's user may not read becomes its own copy: nobody's file changes its mode for it. A kernel, a saved state: some MiB. The
 * copy is shown in the file's place, since below DIR nothing can be written.
 */
static void copy(const struct part *part, const char *at, const char *source) {
	int from = open(source, O_RDONLY | O_CLOEXEC), to = open(at, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	ssize_t n;
	if (from < 0 || to < 0) fail("copy", part->path);
	while ((n = sendfile(to, from, NULL, 1 << 20)) > 0);
	if (n < 0 || fchmod(to, 0444) != 0) fail("copy", part->path);
	close(from);
	close(to);
}

static void show(const struct part *part, int root) {
	struct stat found;
	char source[64];
	if (fstat(part->fd, &found) != 0) fail("look at", part->path);
	const char *at = above(part->path);
	if (S_ISDIR(found.st_mode)) {
		if (mkdir(at, 0755) != 0 && errno != EEXIST && errno != EROFS) fail("mkdir", at);
	} else {
		/* Below DIR it is there. */
		int fd = open(at, O_CREAT | O_RDONLY | O_CLOEXEC, 0600);
		if (fd < 0 && errno == EROFS) fd = open(at, O_PATH | O_CLOEXEC);
		if (fd < 0) fail("make", at);
		close(fd);
	}
	snprintf(source, sizeof source, "/proc/self/fd/%d", part->fd);
	static const char copied[] = PLACE "/.copy";
	const int own = root && S_ISREG(found.st_mode) && !part->writable && (found.st_mode & S_IROTH) == 0;
	if (own) copy(part, copied, source);
	if (mount(own ? copied : source, at, NULL, MS_BIND | MS_REC, NULL) != 0) fail("show", part->path);
	if (own && unlink(copied) != 0) fail("show", part->path);
	if (S_ISCHR(found.st_mode)) return;
	/* What its filesystem forbids already must stay forbidden in a user namespace. */
	struct statvfs flags;
	if (statvfs(at, &flags) != 0) fail("look at", at);
	unsigned long keep = flags.f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_RDONLY);
	unsigned long more = MS_NOSUID | MS_NODEV | (part->writable ? MS_NOEXEC : MS_RDONLY);
	if (mount(NULL, at, NULL, MS_REMOUNT | MS_BIND | keep | more, NULL) != 0) fail("protect", part->path);
}

/*
 * No signals to processes outside, and none of their abstract sockets; and where `files` are bounded, no new ones. A kernel that does not know these
 * scopes says how far it knows, and the program starts without: the namespaces hold all the same.
 */
static void keep_to_itself(int files) {
	/* linux/landlock.h: to make devices, directories, files, pipes and links is handled, and allowed nowhere. Of ABI 6: the scopes. */
	const struct {
		unsigned long long files, network, scoped;
	} rules = {files ? 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 : 0, 0, 3};
	int fd = syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0);
	if (fd < 0 && files) fd = syscall(SYS_landlock_create_ruleset, &rules, sizeof rules.files, 0);
	if (fd < 0) return;
	if (syscall(SYS_landlock_restrict_self, fd, 0) != 0) fail("give up", "signals");
	close(fd);
}

/* A write beyond it fails, as on a full disk, and ends nobody. */
static void bound_files(unsigned long long bytes) {
	const struct rlimit most = {bytes, bytes};
	if (setrlimit(RLIMIT_FSIZE, &most) != 0 || signal(SIGXFSZ, SIG_IGN) == SIG_ERR) fail("bound", "files");
}

/*
 * No changes of other processes by their numbers: the kernel asks for no more than the same user. `prlimit` with a limit of CPU time ends any of them, in
 * spite of Landlock. A thread's own changes name no process, or this one.
 */
static void keep_off_others(void) {
#define LOAD(what) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, what))
#define REFUSE BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)
#define NEVER(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1), REFUSE
#define OWN(call) \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 4), LOAD(args[0]), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 2, 0), \
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, self, 1, 0), REFUSE, LOAD(nr)
	/* It becomes the program, and keeps its number. */
	const unsigned self = (unsigned)getpid();
	struct sock_filter filter[] = {
		LOAD(arch),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE, 1, 0),
		REFUSE,
		LOAD(nr),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, FOREIGN, 0, 1),
		REFUSE,
		OWN(prlimit64),
		OWN(sched_setaffinity),
		OWN(sched_setscheduler),
		OWN(sched_setparam),
		OWN(sched_setattr),
		OWN(migrate_pages),
		OWN(move_pages),
		NEVER(setpriority),
		NEVER(ioprio_set),
		NEVER(process_vm_readv),
		NEVER(process_vm_writev),
		NEVER(ptrace),
		NEVER(kcmp),
		/* The same numbers on all machines; older headers do not have them: pidfd_open, pidfd_getfd, process_madvise, process_mrelease. */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 434, 0, 1), REFUSE,
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 438, 0, 1), REFUSE,
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 440, 0, 1), REFUSE,
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 448, 0, 1), REFUSE,
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
	/* What it costs in speculation is for the program to decide, which has a filter of its own. */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program) != 0) fail("give up", "changes of other processes");
#undef LOAD
#undef REFUSE
#undef NEVER
#undef OWN
}

/* Makes it the user's. Never what has other names, too. */
static void give(const struct part *part, uid_t to) {
	struct stat found;
	if (fstat(part->fd, &found) != 0) fail("look at", part->path);
	if (S_ISCHR(found.st_mode)) return;
	if (!S_ISDIR(found.st_mode) && found.st_nlink != 1) {
		errno = EMLINK;
		fail("give", part->path);
	}
	if (fchownat(part->fd, "", to, to, AT_EMPTY_PATH) != 0) fail("give", part->path);
}

/* In a new user namespace: itself, and nobody else. */
static void map_user(uid_t uid, gid_t gid) {
	char map[64];
	write_file("/proc/self/setgroups", "deny");
	snprintf(map, sizeof map, "%u %u 1", uid, uid);
	write_file("/proc/self/uid_map", map);
	snprintf(map, sizeof map, "%u %u 1", gid, gid);
	write_file("/proc/self/gid_map", map);
}

/*
 * Not root, it gets there by the user namespace that has the rights in it. Its own is made below that one afterwards, and has none there: not
 * even the loopback can be brought up.
 */
static void enter_network(const char *path, int root) {
	int fd = open(absolute(path), O_RDONLY | O_CLOEXEC);
	if (fd < 0) fail("open", path);
	if (!root) {
		int owner = ioctl(fd, NS_GET_USERNS);
		if (owner < 0 || setns(owner, CLONE_NEWUSER) != 0) fail("enter the user namespace of", path);
		close(owner);
	}
	if (setns(fd, CLONE_NEWNET) != 0) fail("enter", path);
	close(fd);
}

int main(int argc, char **argv) {
	const uid_t uid = geteuid();
	const gid_t gid = getegid();
	const int root = uid == 0;
	int at = 2;
	if (argc < 4) {
		fprintf(stderr, "usage: cell DIR [-n FILE] [-r FILE | -o FILE | -w FILE | -l FILE | -s FILE | -a PATH | -f BYTES]... -- PROGRAM ARGUMENT...\n");
		return 125;
	}
	const mode_t mask = umask(022);
	int own_network = CLONE_NEWNET;
	if (strcmp(argv[at], "-n") == 0) {
		enter_network(argv[at + 1], root);
		own_network = 0;
		at += 2;
	}
	if (unshare((root ? 0 : CLONE_NEWUSER) | CLONE_NEWNS | own_network | CLONE_NEWIPC | CLONE_NEWUTS) != 0) fail("unshare", "namespaces");
	if (!root) map_user(uid, gid);
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) fail("mount", "/");
	add(argv[1], 0, 0);
	struct part *last = NULL;
	int nameable = 0;
	unsigned long long file_bytes = 0;
	const char *links[16];
	size_t linked = 0;
	for (; at + 1 < argc && argv[at][0] == '-' && strchr("rowlsaf", argv[at][1]) != NULL && argv[at][1] != 0 && argv[at][2] == 0; at += 2) {
		const char option = argv[at][1];
		struct stat found;
		if (option == 'a') {
			/* Another part must not get the name that was meant for this one. */
			if (!nameable) {
				errno = EINVAL;
				fail("name", argv[at + 1]);
			}
			if (last != NULL) last->path = absolute(argv[at + 1]);
			continue;
		}
		nameable = option != 's' && option != 'l' && option != 'f';
		if (option == 'f') {
			char *end;
			errno = 0;
			file_bytes = strtoull(argv[at + 1], &end, 10);
			if (errno == 0 && (*end != 0 || file_bytes == 0)) errno = EINVAL;
			if (errno != 0) fail("bound files to", argv[at + 1]);
			continue;
		}
		if (option == 's' && lstat(argv[at + 1], &found) == 0 && S_ISLNK(found.st_mode) && linked < sizeof links / sizeof *links) {
			links[linked++] = absolute(argv[at + 1]);
			continue;
		}
		last = add(argv[at + 1], option == 'w', option == 'o' || option == 's');
		if (option != 'l') continue;
		last->path = LIBRARY;
		if (setenv("LD_PRELOAD", LIBRARY, 1) != 0) fail("preload", argv[at + 1]);
	}
	if (at + 1 >= argc || strcmp(argv[at], "--") != 0) {
		errno = EINVAL;
		fail("read", "the arguments");
	}
	static const char *const devices[] = {"/dev/null", "/dev/zero", "/dev/urandom", "/dev/kvm"};
	for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) add(devices[i], 1, 1);
	struct stat kvm;
	const int has_kvm = stat("/dev/kvm", &kvm) == 0;
	for (int i = 0; root && i < count; i++)
		if (parts[i].writable) give(&parts[i], USERS + (uid_t)getpid());
	if (mount("tmpfs", PLACE, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=256m,nr_inodes=256") != 0) fail("mount", PLACE);
	for (size_t i = 0; i < linked; i++) show_link(links[i]);
	for (int i = 0; i < count; i++) show(&parts[i], root);
	if (chdir(PLACE) != 0 || syscall(SYS_pivot_root, ".", ".") != 0 || umount2(".", MNT_DETACH) != 0) fail("enter", "the new root");
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) != 0) fail("protect", "/");
	if (chdir(argv[1]) != 0) fail("enter", argv[1]);
	if (root) {
		const uid_t own = USERS + (uid_t)getpid();
		/* Where everybody may open it, no group is needed. */
		const int by_group = has_kvm && (kvm.st_mode & 0006) != 0006 && (kvm.st_mode & 0060) == 0060;
		if (setgroups(by_group, &kvm.st_gid) != 0 || setresgid(own, own, own) != 0 || setresuid(own, own, own) != 0) fail("become", "another user");
	}
	umask(mask);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) fail("give up", "new privileges");
	keep_to_itself(file_bytes != 0);
	if (file_bytes != 0) bound_files(file_bytes);
	keep_off_others();
	execv(argv[at + 1], argv + at + 1);
	fail("start", argv[at + 1]);
}
