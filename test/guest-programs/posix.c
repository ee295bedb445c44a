/*
 * What POSIX and Linux promise about files, asked of a guest's root: the cases that public suites (pjdfstest, xfstests' generic
 * ones) ask, written anew. Prints a line for each that does not hold, and the number of those that were asked.
 *
 *   posix new DIR            in a directory that it makes
 *   posix image FILE DIR A B with a file and a directory of the image, and two of its names that are one file
 *   posix marks PATH...      device, number and number of names of each, to be compared later
 *   posix fsx FILE OPS SEED  random reads, writes, maps, holes and sizes against a model in memory
 *   posix covered DIR FILE   with a directory and a file of the image, both of which are gone at the end
 *   posix stress DIR OPS SEED  four processes make, link, move and remove the same names; then everything adds up
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static int asked, failed;

static void check(int holds, const char *what, int line) {
  int e = errno;
  asked++;
  if (holds) return;
  failed++;
  printf("not so (line %d): %s (errno %d, %s)\n", line, what, e, strerror(e));
}
#define OK(what, holds) (errno = 0, check((holds), what, __LINE__))
#define FAILS(what, call, code) (errno = 0, check((call) == -1 && errno == (code), what, __LINE__))

static struct stat of(const char *path) {
  struct stat st;
  memset(&st, 0, sizeof st);
  if (lstat(path, &st) < 0) st.st_ino = 0;
  return st;
}

static int one(const char *a, const char *b) {
  struct stat x = of(a), y = of(b);
  return x.st_ino != 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static void put(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  OK("a file is written", fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
  close(fd);
}

static void append(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_APPEND);
  OK("a file is appended to", fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
  close(fd);
}

static int has(const char *path, const char *text) {
  static char all[1 << 20];
  int fd = open(path, O_RDONLY);
  if (fd < 0) return 0;
  ssize_t n = read(fd, all, sizeof all - 1);
  close(fd);
  all[n < 0 ? 0 : n] = 0;
  return n >= (ssize_t)strlen(text) && strcmp(all + n - strlen(text), text) == 0;
}

/* As another user, in a process of its own: what the call gave, or the errno as a negative number. */
static int as_user(uid_t uid, int (*work)(const char *), const char *path) {
  pid_t pid = fork();
  if (pid == 0) {
    if (setgid(uid) < 0 || setuid(uid) < 0) _exit(255);
    errno = 0;
    _exit(work(path) < 0 ? errno : 0);
  }
  int status;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? -WEXITSTATUS(status) : 1;
}
static int by_opening(const char *path) { return open(path, O_RDWR); }
static int by_unlinking(const char *path) { return unlink(path); }
static int by_chmod(const char *path) { return chmod(path, 0777); }
static int by_writing(const char *path) {
  int fd = open(path, O_WRONLY);
  return fd < 0 ? -1 : (int)write(fd, "x", 1) - 1;
}
static int by_linking(const char *path) { return link(path, "stolen"); }

/* Every entry says the number that the file has. */
static void entries_agree(const char *dir) {
  DIR *d = opendir(dir);
  OK("a directory opens", d != NULL);
  if (!d) return;
  int wrong = 0;
  for (struct dirent *e; (e = readdir(d));) {
    struct stat st;
    if (strcmp(e->d_name, "..") && fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino != e->d_ino) {
      wrong++;
      printf("  %s/%s: entry %lu, file %lu\n", dir, e->d_name, (unsigned long)e->d_ino, (unsigned long)st.st_ino);
    }
  }
  closedir(d);
  OK("a directory's entries have the numbers of their files", wrong == 0);
}

static void links_and_names(void) {
  put("a", "one");
  OK("link", link("a", "b") == 0 && one("a", "b") && of("a").st_nlink == 2);
  append("b", "two");
  OK("what is written by one name is read by the other", has("a", "onetwo"));
  FAILS("link onto a name", link("a", "b"), EEXIST);
  OK("rename of one name onto the other does nothing", rename("a", "b") == 0 && of("a").st_nlink == 2);
  OK("mkdir", mkdir("d", 0755) == 0 && of("d").st_nlink == 2);
  FAILS("link of a directory", link("d", "e"), EPERM);
  OK("a directory in a directory counts", mkdir("d/e", 0755) == 0 && of("d").st_nlink == 3);
  FAILS("rmdir of a full one", rmdir("d"), ENOTEMPTY);
  FAILS("mkdir onto a name", mkdir("a", 0755), EEXIST);
  FAILS("unlink of a directory", unlink("d"), EISDIR);
  FAILS("rmdir of a file", rmdir("a"), ENOTDIR);
  FAILS("a directory into itself", rename("d", "d/e/f"), EINVAL);
  FAILS("a file onto a directory", rename("a", "d"), EISDIR);
  FAILS("a directory onto a file", rename("d", "a"), ENOTDIR);
  OK("mkdir", mkdir("full", 0755) == 0 && mkdir("full/x", 0755) == 0);
  errno = 0;
  check(rename("d", "full") == -1 && (errno == ENOTEMPTY || errno == EEXIST), "a directory onto a full one", __LINE__);
  OK("rmdir", rmdir("full/x") == 0);
  ino_t number = of("d").st_ino;
  OK("a directory onto an empty one", rename("d", "full") == 0 && of("full").st_ino == number && of("full/e").st_ino != 0);
  FAILS("rename without replacing", renameat2(AT_FDCWD, "a", AT_FDCWD, "full", RENAME_NOREPLACE), EEXIST);
  put("c", "see");
  ino_t a = of("a").st_ino, c = of("c").st_ino;
  OK("exchange", renameat2(AT_FDCWD, "a", AT_FDCWD, "c", RENAME_EXCHANGE) == 0 && of("a").st_ino == c && of("c").st_ino == a);
  int fd = open("a", O_RDWR);
  struct stat st;
  char text[8] = "";
  OK("unlink of an open file", unlink("a") == 0 && fstat(fd, &st) == 0 && st.st_nlink == 0 && read(fd, text, 8) == 3);
  OK("and its name is free", open("a", O_RDONLY) < 0 && errno == ENOENT);
  close(fd);

  OK("symlink", symlink("c", "s") == 0 && of("s").st_size == 1 && readlink("s", text, 8) == 1 && text[0] == 'c');
  FAILS("a symlink that is not followed", open("s", O_RDONLY | O_NOFOLLOW), ELOOP);
  OK("symlink", symlink("loop2", "loop1") == 0 && symlink("loop1", "loop2") == 0);
  FAILS("symlinks in a circle", open("loop1", O_RDONLY), ELOOP);
  FAILS("a file as a directory", open("c/x", O_RDONLY), ENOTDIR);
  FAILS("only if it is new", open("c", O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
  FAILS("only if it is new, and a symlink is there", open("s", O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
  FAILS("a directory for writing", open("full", O_WRONLY), EISDIR);
  char name[300];
  memset(name, 'n', sizeof name);
  name[255] = 0;
  put(name, "long");
  OK("a name of 255 bytes", of(name).st_ino != 0 && unlink(name) == 0);
  name[255] = 'n', name[256] = 0;
  FAILS("a name of 256 bytes", open(name, O_CREAT | O_WRONLY, 0600), ENAMETOOLONG);
  const char *odd[] = {"\xff\xfe\x80", "new\nline", "\x01\x7f", "-rf", "\"quoted\" \\ name", " "};
  for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
    put(odd[i], "odd");
    OK("a name of any bytes", has(odd[i], "odd") && unlink(odd[i]) == 0);
  }
  int t = open(".", O_TMPFILE | O_RDWR, 0600);
  /* An overlay has it from Linux 6.3 on; programs make a file and remove its name then. */
  if (t >= 0 || errno != EOPNOTSUPP) {
    OK("a file without a name", t >= 0 && write(t, "tmp", 3) == 3);
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", t);
    OK("which gets one", linkat(AT_FDCWD, self, AT_FDCWD, "named", AT_SYMLINK_FOLLOW) == 0 && has("named", "tmp"));
    close(t);
  }
  OK("fifo, device, socket", mkfifo("fifo", 0600) == 0 && mknod("null", S_IFCHR | 0600, makedev(1, 3)) == 0);
  struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "sock"};
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  OK("a socket has a name", bind(s, (void *)&to, sizeof to) == 0 && S_ISSOCK(of("sock").st_mode));
  OK("and is reached by it", listen(s, 1) == 0 && connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&to, sizeof to) == 0);
  close(s);
}

static void permissions(void) {
  put("own", "mine");
  OK("chmod", chmod("own", 0600) == 0);
  OK("another user does not open it", as_user(1234, by_opening, "own") == -EACCES);
  OK("nor change its mode", as_user(1234, by_chmod, "own") == -EPERM);
  OK("mkdir", mkdir("shared", 0777) == 0 && chmod("shared", 01777) == 0);
  put("shared/root", "x");
  OK("a sticky directory keeps the files of others", as_user(1234, by_unlinking, "shared/root") == -EPERM);
  OK("chmod", chmod("shared", 0777) == 0 && as_user(1234, by_unlinking, "shared/root") == 0);
  OK("a directory's group", chown("shared", 0, 77) == 0 && chmod("shared", 02777) == 0 && mkdir("shared/sub", 0755) == 0);
  OK("is inherited", of("shared/sub").st_gid == 77 && (of("shared/sub").st_mode & S_ISGID));
  OK("set-uid goes with a change of owner", chmod("own", 06755) == 0 && chown("own", 1, 1) == 0 && !(of("own").st_mode & S_ISUID));
  OK("set-uid goes when another user writes", chown("own", 5, 5) == 0 && chmod("own", 04777) == 0 &&
     as_user(1234, by_writing, "own") == 0 && !(of("own").st_mode & S_ISUID));
  OK("hard links of foreign files are refused as on the host", chmod("own", 0600) == 0 && as_user(1234, by_linking, "own") < 0);
  mode_t before = umask(027);
  int fd = open("masked", O_CREAT | O_WRONLY, 0666);
  OK("umask", (of("masked").st_mode & 0777) == 0640);
  close(fd);
  umask(before);
  OK("attributes with names", setxattr("own", "user.colour", "red", 3, 0) == 0);
  char value[8];
  OK("are there", getxattr("own", "user.colour", value, 8) == 3 && removexattr("own", "user.colour") == 0);
}

static void times(void) {
  put("t", "x");
  long long when[] = {0, -1, -2147483647LL, 951782400, 4102444800LL, 9223372037LL, 15032385534LL}; /* ext4: 1901 to 2446 */
  for (size_t i = 0; i < sizeof when / sizeof *when; i++) {
    struct timespec to[2] = {{.tv_sec = when[i], .tv_nsec = 123456789}, {.tv_sec = when[i], .tv_nsec = 987654321}};
    OK("a time", utimensat(AT_FDCWD, "t", to, 0) == 0);
    struct stat st = of("t");
    if (st.st_mtim.tv_sec != when[i] || st.st_mtim.tv_nsec != 987654321) printf("  %lld became %lld\n", when[i], (long long)st.st_mtim.tv_sec);
    OK("is kept to the nanosecond", st.st_mtim.tv_sec == when[i] && st.st_mtim.tv_nsec == 987654321 && st.st_atim.tv_sec == when[i]);
  }
  struct timespec keep[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 5}};
  OK("one of both", utimensat(AT_FDCWD, "t", keep, 0) == 0 && of("t").st_mtim.tv_sec == 5 && of("t").st_atim.tv_sec == 15032385534LL);
  struct timespec ctime = of("t").st_ctim;
  usleep(20000);
  OK("a change of mode is a change", chmod("t", 0600) == 0 && (of("t").st_ctim.tv_sec != ctime.tv_sec || of("t").st_ctim.tv_nsec != ctime.tv_nsec));
}

static void contents(void) {
  char block[8192], other[8192];
  int fd = open("sparse", O_RDWR | O_CREAT, 0600);
  OK("a large hole", ftruncate(fd, 1LL << 30) == 0 && of("sparse").st_size == 1LL << 30 && of("sparse").st_blocks < 64);
  OK("is zeros", pread(fd, block, 4096, 12345) == 4096 && block[0] == 0 && memcmp(block, block + 1, 4095) == 0);
  OK("data in it", pwrite(fd, "data", 4, 8 << 20) == 4 && lseek(fd, 0, SEEK_DATA) == 8 << 20 && lseek(fd, 8 << 20, SEEK_HOLE) == (8 << 20) + 4096);
  OK("is punched out", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8 << 20, 4096) == 0 && pread(fd, block, 4, 8 << 20) == 4 && block[0] == 0);
  FAILS("a negative size", ftruncate(fd, -1), EINVAL);
  OK("smaller and larger again", pwrite(fd, "rest", 4, 0) == 4 && ftruncate(fd, 2) == 0 && ftruncate(fd, 8) == 0 && pread(fd, block, 8, 0) == 8 && !memcmp(block, "re\0\0\0\0\0\0", 8));
  close(fd);

  int a = open("ap", O_WRONLY | O_CREAT | O_APPEND, 0600), b = open("ap", O_WRONLY | O_APPEND);
  for (int i = 0; i < 10; i++) OK("two append", write(a, "aa", 2) == 2 && write(b, "bb", 2) == 2);
  OK("and nothing is lost", of("ap").st_size == 40);
  close(a), close(b);

  fd = open("map", O_RDWR | O_CREAT, 0600);
  OK("a map", ftruncate(fd, 8192) == 0);
  char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  OK("is the file", map != MAP_FAILED && (memcpy(map + 100, "mapped", 6), pread(fd, block, 6, 100) == 6) && !memcmp(block, "mapped", 6));
  OK("both ways", pwrite(fd, "written", 7, 5000) == 7 && !memcmp(map + 5000, "written", 7) && msync(map, 8192, MS_SYNC) == 0);
  munmap(map, 8192);
  int copy = open("copy", O_RDWR | O_CREAT, 0600);
  OK("copy_file_range", copy_file_range(fd, NULL, copy, NULL, 8192, 0) >= 0);
  off_t done = lseek(copy, 0, SEEK_CUR);
  OK("copies", done == 8192 ? pread(copy, other, 8192, 0) == 8192 && pread(fd, block, 8192, 0) == 8192 && !memcmp(block, other, 8192) : 0);
  OK("fsync", fsync(fd) == 0 && fdatasync(copy) == 0 && syncfs(fd) == 0);
  close(copy);

  OK("flock", flock(fd, LOCK_EX) == 0);
  int again = open("map", O_RDWR);
  FAILS("one at a time", flock(again, LOCK_EX | LOCK_NB), EWOULDBLOCK);
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10};
  OK("a part is locked", fcntl(fd, F_OFD_SETLK, &lock) == 0);
  struct flock theirs = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 10};
  errno = 0;
  check(fcntl(again, F_OFD_SETLK, &theirs) == -1 && (errno == EAGAIN || errno == EACCES), "one at a time", __LINE__);
  close(fd), close(again);
  void *page;
  int direct = open("direct", O_RDWR | O_CREAT | O_DIRECT, 0600);
  OK("without the cache", direct >= 0 && posix_memalign(&page, 4096, 4096) == 0 && (memset(page, 7, 4096), write(direct, page, 4096) == 4096) && pread(direct, page, 4096, 0) == 4096);
  close(direct);
  struct statvfs fs;
  OK("statvfs", statvfs(".", &fs) == 0 && fs.f_namemax == 255 && fs.f_bfree > 0 && fs.f_ffree > 0);
}

static void many(void) {
  OK("mkdir", mkdir("many", 0755) == 0);
  char name[64];
  for (int i = 0; i < 1000; i++) {
    snprintf(name, sizeof name, "many/file-%d", i);
    close(open(name, O_CREAT | O_WRONLY, 0600));
  }
  entries_agree("many");
  DIR *d = opendir("many");
  int seen = 0, removed = 0;
  long middle = 0;
  for (struct dirent *e; (e = readdir(d));) {
    if (e->d_name[0] == '.') continue;
    seen++;
    if (seen == 500) middle = telldir(d);
    if (seen % 2 && unlinkat(dirfd(d), e->d_name, 0) == 0) removed++;
  }
  OK("all are seen once while some are removed", seen == 1000 && removed == 500);
  seekdir(d, middle);
  int rest = 0;
  while (readdir(d)) rest++;
  OK("a place in a directory is found again", rest >= 200 && rest <= 510);
  closedir(d);
}

static void watched(const char *path) {
  int n = inotify_init1(IN_NONBLOCK);
  OK("inotify", n >= 0 && inotify_add_watch(n, path, IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE) >= 0);
  append(path, "!");
  char events[4096];
  ssize_t size = read(n, events, sizeof events);
  OK("a watched file tells of a write", size > 0 && ((struct inotify_event *)events)->mask & (IN_MODIFY | IN_ATTRIB));
  close(n);
}

static int in_new(const char *dir) {
  OK("mkdir", mkdir(dir, 0755) == 0 && chdir(dir) == 0);
  links_and_names();
  permissions();
  times();
  contents();
  many();
  put("w", "x");
  watched("w");
  entries_agree(".");
  return 0;
}

static int in_image(const char *file, const char *dir, const char *a, const char *b) {
  char other[2 * PATH_MAX], inside[2 * PATH_MAX];
  struct stat root = of("/"), before = of(file);
  OK("one device for the whole tree", before.st_dev == root.st_dev && of(dir).st_dev == root.st_dev);
  put("/new-file", "x");
  OK("for new files too", of("/new-file").st_dev == root.st_dev);
  entries_agree(dir);
  ino_t number = before.st_ino;
#define SAME(what) OK(what, of(file).st_ino == number && of(file).st_dev == root.st_dev)
  int lock = open(file, O_RDONLY);
  OK("a lock", flock(lock, LOCK_EX) == 0);
  watched(file);
  SAME("the number after the first write");
  int again = open(file, O_RDWR);
  FAILS("the lock is still held", flock(again, LOCK_EX | LOCK_NB), EWOULDBLOCK);
  close(lock), close(again);
  OK("the time of a file of the image", utimensat(AT_FDCWD, file, (struct timespec[2]){{.tv_sec = 7}, {.tv_sec = -7}}, 0) == 0);
  OK("chmod", chmod(file, 0600) == 0 && chown(file, 3, 4) == 0);
  SAME("the number after a change of mode, owner and time");
  snprintf(other, sizeof other, "%s.link", file);
  OK("link", link(file, other) == 0 && one(file, other) && of(file).st_nlink == 2);
  append(other, "by the other name");
  OK("one file", has(file, "by the other name"));
  SAME("the number after a link");
  snprintf(inside, sizeof inside, "%s.moved", file);
  OK("rename", rename(file, inside) == 0 && of(inside).st_ino == number && rename(inside, file) == 0);
  SAME("the number after a rename");

  OK("two names of the image are one file", one(a, b) && of(a).st_nlink == of(b).st_nlink && of(a).st_nlink >= 2);
  nlink_t names = of(a).st_nlink;
  number = of(a).st_ino;
  int fd = open(b, O_RDONLY);
  append(a, "written once");
  OK("also when one is written", one(a, b) && of(b).st_ino == number && has(b, "written once") && of(b).st_nlink == names);
  close(fd);
  snprintf(other, sizeof other, "%s.third", a);
  OK("and linked", link(b, other) == 0 && of(a).st_nlink == names + 1 && one(other, a));
  append(other, "and again");
  OK("three names, one file", has(a, "and again") && has(b, "and again"));
  OK("unlink", unlink(a) == 0 && of(b).st_nlink == names && has(b, "and again") && link(b, a) == 0 && unlink(other) == 0);

  DIR *d = opendir(dir);
  struct dirent *e = NULL;
  while (d && (e = readdir(d)) && e->d_name[0] == '.') continue;
  OK("a directory of the image has something in it", d && e);
  if (!d || !e) return 1;
  snprintf(other, sizeof other, "%s.moved", dir);
  char there[3 * PATH_MAX];
  snprintf(inside, sizeof inside, "%s/%s", dir, e->d_name);
  snprintf(there, sizeof there, "%s/%s", other, e->d_name);
  number = of(dir).st_ino;
  ino_t child = of(inside).st_ino;
  OK("a directory of the image is renamed", rename(dir, other) == 0);
  OK("and keeps its number and what is in it", of(other).st_ino == number && of(there).st_ino == child && of(dir).st_ino == 0);
  entries_agree(other);
  FAILS("a full directory of the image is not removed", rmdir(other), ENOTEMPTY);
  OK("and back", rename(other, dir) == 0 && of(dir).st_ino == number && of(inside).st_ino == child);
  if (S_ISREG(of(inside).st_mode)) {
    fd = open(inside, O_RDONLY);
    char first, second;
    OK("an open file of the image outlives its name", read(fd, &first, 1) == 1 && unlink(inside) == 0 && of(inside).st_ino == 0 &&
       pread(fd, &second, 1, 0) == 1 && first == second);
    close(fd);
    put(inside, "new");
    OK("a new file has a number of its own", of(inside).st_ino != child && has(inside, "new"));
  }
  closedir(d);
  entries_agree(dir);
  return 0;
}

/* What an overlay does to what the image has: covers it, and must not show it again. */
static int covered(const char *dir, const char *file) {
  char a[2 * PATH_MAX], b[2 * PATH_MAX], text[8];
  int fd = open(file, O_RDONLY);
  struct stat before = of(file), st;
  OK("a map of a file of the image", fd >= 0 && before.st_size > 0);
  char *map = mmap(NULL, 1, PROT_READ, MAP_PRIVATE, fd, 0), first = map == MAP_FAILED ? 0 : *map;
  OK("which is written then", setxattr(file, "user.colour", "red", 3, 0) == 0 && chmod(file, 04755) == 0);
  append(file, "tail");
  OK("is what it was", *map == first && of(file).st_size == before.st_size + 4 && has(file, "tail"));
  OK("attributes go with it when it moves", (snprintf(a, sizeof a, "%s.moved", file), rename(file, a) == 0) &&
     getxattr(a, "user.colour", text, sizeof text) == 3);
  OK("the name is free", of(file).st_ino == 0 && mkdir(file, 0755) == 0 && S_ISDIR(of(file).st_mode) && of(file).st_nlink == 2);
  OK("for anything", rmdir(file) == 0 && symlink(a, file) == 0 && has(file, "tail") && unlink(file) == 0);
  OK("two exchange", (put(file, "new"), renameat2(AT_FDCWD, file, AT_FDCWD, a, RENAME_EXCHANGE) == 0) && has(file, "tail") && has(a, "new"));
  OK("as do a file and a directory of the image", renameat2(AT_FDCWD, dir, AT_FDCWD, file, RENAME_EXCHANGE) == 0 &&
     S_ISDIR(of(file).st_mode) && S_ISREG(of(dir).st_mode) && renameat2(AT_FDCWD, dir, AT_FDCWD, file, RENAME_EXCHANGE) == 0);
  OK("unlink", unlink(a) == 0 && (fd = open(file, O_RDWR)) >= 0 && unlink(file) == 0 && fstat(fd, &st) == 0 && st.st_nlink == 0);
  OK("is still written by who has it open", pwrite(fd, "x", 1, 0) == 1 && pread(fd, text, 1, 0) == 1 && text[0] == 'x');
  close(fd);

  int at = open(dir, O_RDONLY | O_DIRECTORY);
  DIR *d = fdopendir(dup(at));
  int names = 0;
  for (struct dirent *e; (e = readdir(d));) {
    if (e->d_name[0] == '.') continue;
    names++;
    OK("a name of the image is removed", unlinkat(at, e->d_name, 0) == 0 || (errno == EISDIR && renameat(at, e->d_name, AT_FDCWD, "/elsewhere") == 0));
  }
  rewinddir(d);
  int left = 0;
  for (struct dirent *e; (e = readdir(d));) left += e->d_name[0] != '.';
  OK("and not seen again", names > 0 && left == 0);
  closedir(d);
  OK("an emptied directory of the image is removed", rmdir(dir) == 0 && of(dir).st_ino == 0);
  FAILS("and nothing is made in it by who has it open", openat(at, "late", O_CREAT | O_WRONLY, 0600), ENOENT);
  close(at);
  OK("a new one of its name", mkdir(dir, 0755) == 0 && (d = opendir(dir)) != NULL);
  if (failed) return 1;
  for (left = 0; readdir(d);) left++;
  closedir(d);
  OK("is empty, and full of what is put there", left == 2 && (snprintf(b, sizeof b, "%s/x", dir), put(b, "y"), has(b, "y")) && unlink(b) == 0 && rmdir(dir) == 0);
  return 0;
}

static int marks(int count, char **paths) {
  for (int i = 0; i < count; i++) {
    struct stat st = of(paths[i]);
    printf("%s %lu %lu %lu\n", paths[i], (unsigned long)st.st_dev, (unsigned long)st.st_ino, (unsigned long)st.st_nlink);
  }
  return 0;
}

#define MOST (256 * 1024)
static unsigned long long state;
static unsigned draw(unsigned below) {
  state = state * 6364136223846793005ULL + 1442695040888963407ULL;
  return (unsigned)(state >> 33) % below;
}

static int fsx(const char *path, long ops, unsigned seed) {
  static char model[MOST], buffer[MOST];
  state = seed;
  int fd = open(path, O_RDWR | O_CREAT, 0600);
  OK("open", fd >= 0);
  off_t size = lseek(fd, 0, SEEK_END);
  if (size > MOST) OK("truncate", ftruncate(fd, size = MOST) == 0);
  OK("read", pread(fd, model, size, 0) == size);
  for (long i = 0; i < ops && !failed; i++) {
    unsigned kind = draw(9), at = draw(MOST), length = 1 + draw(MOST - at < 40000 ? MOST - at : 40000);
    if (kind == 0 || kind == 7) { /* write */
      for (unsigned j = 0; j < length; j++) buffer[j] = (char)draw(256);
      OK("write", pwrite(fd, buffer, length, at) == length);
      memcpy(model + at, buffer, length);
      if (at + length > size) size = at + length;
    } else if (kind == 1) { /* size */
      OK("truncate", ftruncate(fd, at) == 0);
      if (at < size) memset(model + at, 0, size - at);
      size = at;
    } else if (kind == 2 && at < size) { /* map */
      if (at + length > size) length = size - at;
      off_t page = at & ~4095u;
      char *map = mmap(NULL, at - page + length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, page);
      OK("map", map != MAP_FAILED);
      OK("a map shows the file", memcmp(map + (at - page), model + at, length) == 0);
      for (unsigned j = 0; j < length; j++) model[at + j] = map[at - page + j] = (char)draw(256);
      munmap(map, at - page + length);
    } else if (kind == 3) { /* hole */
      OK("hole", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, length) == 0);
      if (at < size) memset(model + at, 0, at + length > size ? size - at : length);
    } else if (kind == 4) { /* zero */
      OK("zero range", fallocate(fd, FALLOC_FL_ZERO_RANGE, at, length) == 0);
      memset(model + at, 0, length);
      if (at + length > size) size = at + length;
    } else if (kind == 5) { /* other descriptor */
      close(fd);
      fd = open(path, O_RDWR);
      OK("open again", fd >= 0);
    } else if (kind == 6) {
      OK("fsync", (i % 8 ? fdatasync(fd) : fsync(fd)) == 0);
    }
    OK("the size", of(path).st_size == size);
    if (at < size) {
      if (at + length > size) length = size - at;
      OK("what was read", pread(fd, buffer, length, at) == length && memcmp(buffer, model + at, length) == 0);
    }
  }
  OK("all of it", pread(fd, buffer, MOST, 0) == size && memcmp(buffer, model, size) == 0);
  return 0;
}

/* Any name, in a small world, so that they meet. */
static const char *some(char *into) {
  sprintf(into, "%c/%c", 'A' + draw(3), 'a' + draw(8));
  return into;
}

static int stressed(long ops) {
  char one[8], other[8];
  for (long i = 0; i < ops; i++) {
    int rc = 0, fd;
    errno = 0;
    switch (draw(10)) {
      case 0: case 1: if ((rc = fd = open(some(one), O_CREAT | O_WRONLY | O_APPEND | O_NOFOLLOW, 0644)) >= 0) { rc = (int)write(fd, "line\n", 5); close(fd); } break;
      case 2: rc = link(some(one), some(other)); break;
      case 3: case 4: rc = rename(some(one), some(other)); break;
      case 5: rc = unlink(some(one)); break;
      case 6: rc = mkdir(some(one), 0755); break;
      case 7: rc = rmdir(some(one)); break;
      case 8: rc = symlink("nowhere", some(one)); break;
      case 9: rc = renameat2(AT_FDCWD, some(one), AT_FDCWD, some(other), RENAME_EXCHANGE); break;
    }
    /* What one process does to another's names; never EXDEV, ESTALE or EIO. */
    int usual = errno == EEXIST || errno == ENOENT || errno == ENOTDIR || errno == EISDIR || errno == ENOTEMPTY || errno == ELOOP || errno == EPERM || errno == EINVAL;
    if (rc < 0 && !usual) {
      printf("  %s: %s\n", one, strerror(errno));
      return 1;
    }
  }
  return 0;
}

static struct { ino_t number; nlink_t said, seen; } found[64];
static int wrong;
static int count(const char *path, const struct stat *st, int kind, struct FTW *at) {
  (void)at;
  if (kind == FTW_D) entries_agree(path);
  if (!S_ISREG(st->st_mode)) return 0;
  size_t i = 0;
  while (found[i].number && found[i].number != st->st_ino) i++;
  found[i].number = st->st_ino, found[i].said = st->st_nlink, found[i].seen++;
  if (st->st_size % 5) wrong++;
  return 0;
}
static int drop(const char *path, const struct stat *st, int kind, struct FTW *at) {
  (void)st, (void)kind, (void)at;
  OK("everything is removed", remove(path) == 0);
  return 0;
}

static int stress(const char *dir, long ops, unsigned seed) {
  OK("mkdir", (mkdir(dir, 0755) == 0 || errno == EEXIST) && chdir(dir) == 0);
  for (char name[] = "A"; *name < 'D'; ++*name) OK("mkdir", mkdir(name, 0755) == 0 || errno == EEXIST);
  /* A little first, while most of what was there before still is. */
  for (int round = 0; round < 2; round++) {
    fflush(stdout);
    for (unsigned child = 0; child < 4; child++) {
      if (fork()) continue;
      state = seed * 8 + round * 4 + child;
      int bad = stressed(round ? ops : 3);
      fflush(stdout);
      _exit(bad);
    }
    for (int status, child = 0; child < 4; child++) OK("only what others do is in the way", wait(&status) > 0 && status == 0);
    memset(found, 0, sizeof found);
    OK("a walk", nftw(".", count, 16, FTW_PHYS) == 0 && wrong == 0);
    for (size_t i = 0; found[i].number; i++) OK("a file has as many names as it says", found[i].said == found[i].seen);
  }
  for (char name[] = "A"; *name < 'D'; ++*name) nftw(name, drop, 16, FTW_PHYS | FTW_DEPTH);
  return 0;
}

int main(int argc, char **argv) {
  if (argc >= 3 && !strcmp(argv[1], "new")) in_new(argv[2]);
  else if (argc == 6 && !strcmp(argv[1], "image")) in_image(argv[2], argv[3], argv[4], argv[5]);
  else if (argc >= 3 && !strcmp(argv[1], "marks")) return marks(argc - 2, argv + 2);
  else if (argc == 5 && !strcmp(argv[1], "fsx")) fsx(argv[2], atol(argv[3]), (unsigned)atol(argv[4]));
  else if (argc == 4 && !strcmp(argv[1], "covered")) covered(argv[2], argv[3]);
  else if (argc == 5 && !strcmp(argv[1], "stress")) stress(argv[2], atol(argv[3]), (unsigned)atol(argv[4]));
  else return 2;
  printf("asked %d, not so %d\n", asked, failed);
  return failed > 0;
}
