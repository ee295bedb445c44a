/* Gives a file room and writes every second block of it: `scatter FILE BLOCKS`. Or looks whether it is as it was written: `scatter FILE`. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 4096 };

static int fail(const char *what) {
  perror(what);
  return 1;
}

int main(int count, char **words) {
  char block[BLOCK], found[BLOCK];
  if (count < 2) return 2;
  int file = open(words[1], O_RDWR | O_CREAT, 0600);
  if (file < 0) return fail("open");
  if (count > 2 && fallocate(file, 0, 0, atoll(words[2]) * BLOCK) != 0) return fail("fallocate");
  struct stat about;
  if (fstat(file, &about) != 0) return fail("fstat");
  for (off_t at = 0; at < about.st_size; at += BLOCK) {
    int written = at / BLOCK % 2 == 0;
    memset(block, written, BLOCK);
    if (written) memcpy(block, &at, sizeof at);
    if (count > 2) {
      if (written && pwrite(file, block, BLOCK, at) != BLOCK) return fail("pwrite");
    } else if (pread(file, found, BLOCK, at) != BLOCK || memcmp(block, found, BLOCK) != 0) {
      fprintf(stderr, "%lld is not as it was written\n", (long long)at);
      return 1;
    }
  }
  if (fsync(file) != 0) return fail("fsync");
  printf("%lld\n", (long long)about.st_size / BLOCK);
  return 0;
}
