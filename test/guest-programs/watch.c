// Says what inotify tells of these paths: a letter for the kind, the path that is watched, and the name in it, if there is one.
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <unistd.h>

static const struct { unsigned mask; char letter; } KINDS[] = {
  { IN_CREATE, 'n' }, { IN_DELETE, 'd' }, { IN_MODIFY, 'c' }, { IN_ATTRIB, 'e' },
  { IN_CLOSE_WRITE, 'w' }, { IN_MOVED_FROM, 'y' }, { IN_MOVED_TO, 'm' },
};

int main(int count, char **paths) {
  unsigned all = 0;
  for (unsigned i = 0; i < sizeof KINDS / sizeof *KINDS; i++) all |= KINDS[i].mask;
  int fd = inotify_init();
  for (int i = 1; i < count; i++)
    if (inotify_add_watch(fd, paths[i], all) != i) return perror(paths[i]), 1;
  setvbuf(stdout, NULL, _IOLBF, 0);
  puts("ready");
  for (;;) {
    static char buffer[65536] __attribute__((aligned(8)));
    ssize_t got = read(fd, buffer, sizeof buffer);
    if (got <= 0) return perror("inotify"), 1;
    for (char *at = buffer; at < buffer + got;) {
      struct inotify_event *event = (struct inotify_event *)at;
      for (unsigned i = 0; i < sizeof KINDS / sizeof *KINDS; i++)
        if (event->mask & KINDS[i].mask)
          printf("%c %s%s%s\n", KINDS[i].letter, paths[event->wd], event->len ? " " : "", event->len ? event->name : "");
      at += sizeof *event + event->len;
    }
  }
}
