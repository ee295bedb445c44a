/* What EXEC runs. A line is a word and the rest; there is no quoting. */
#include "guest.h"
#include "protocol.h"

enum { OUTPUT = 60000, FIRST_DIRTY = 32 << 20, PAGE = 4096, NOT_FOUND = 127 };

static char output_bytes[OUTPUT];
static u8 sector[SECTOR_BYTES] __attribute__((aligned(SECTOR_BYTES)));
static u64 counter;

struct result { struct text out; u32 code; bool failed; };

static void fail(struct result *r, u32 code, const char *message) {
  r->code = code;
  r->failed = true;
  r->out.used = 0;
  add(&r->out, message);
  add(&r->out, "\n");
}

/* Writes to every page of that many MiB, from 32 MiB upward. */
static void dirty(struct result *r, u64 mib) {
  u64 end = FIRST_DIRTY + (mib << 20);
  u64 limit = memory_bytes < 3UL << 30 ? memory_bytes : 3UL << 30; /* devices lie above */
  if (end > limit) {
    fail(r, 1, "dirty: more than there is");
    return;
  }
  counter++;
  for (u64 at = FIRST_DIRTY; at < end; at += PAGE) *(volatile u64 *)at = counter;
  add(&r->out, "dirtied ");
  add_number(&r->out, mib);
  add(&r->out, " MiB\n");
}

static void block(struct result *r, const char *arguments) {
  bool write = is_word(arguments, "write");
  const char *which = after_word(arguments), *text = after_word(which);
  u64 drive = number(which);
  if ((!write && !is_word(arguments, "read")) || *which < '0' || *which > '9') {
    fail(r, 2, "usage: block read DRIVE | block write DRIVE TEXT");
    return;
  }
  if (drive >= drives) {
    fail(r, 1, "block: no such drive");
    return;
  }
  for (u32 i = 0; i < SECTOR_BYTES; i++) sector[i] = 0;
  if (write) copy(sector, text, length(text) < SECTOR_BYTES ? length(text) : SECTOR_BYTES);
  u8 status = drive_transfer((u32)drive, write, sector);
  if (status != 0) {
    fail(r, 1, "block: the transfer failed with status ");
    r->out.used--;
    add_number(&r->out, status);
    add(&r->out, "\n");
    return;
  }
  if (write) return;
  u32 n = 0;
  while (n < SECTOR_BYTES && sector[n]) n++;
  add_bytes(&r->out, sector, n);
  add(&r->out, "\n");
}

void command_run(u32 stream, char *line, bool has_stdin) {
  struct result r = {{output_bytes, OUTPUT, 0}, 0, false};
  const char *rest = after_word(line);
  if (is_word(line, "echo")) {
    add(&r.out, rest);
    add(&r.out, "\n");
  } else if (is_word(line, "true")) {
    r.code = 0;
  } else if (is_word(line, "false")) {
    r.code = 1;
  } else if (is_word(line, "exit")) {
    r.code = (u32)number(rest) & 255;
  } else if (is_word(line, "cat") && is_word(rest, "identity")) {
    identity_describe(&r.out);
  } else if (is_word(line, "cat") && *rest == 0) {
    if (has_stdin) {
      if (call_keep_echo(stream)) return;
      fail(&r, 1, "cat: too many commands");
    }
  } else if (is_word(line, "fill")) {
    if (call_keep_fill(stream, number(rest) << 10)) return;
    fail(&r, 1, "fill: too many commands");
  } else if (is_word(line, "hostname")) {
    add(&r.out, identity_hostname());
    add(&r.out, "\n");
  } else if (is_word(line, "dirty")) {
    dirty(&r, number(rest));
  } else if (is_word(line, "memory")) {
    add_number(&r.out, memory_bytes >> 20);
    add(&r.out, "\n");
  } else if (is_word(line, "block")) {
    block(&r, rest);
  } else if (is_word(line, "counter")) {
    add_number(&r.out, ++counter);
    add(&r.out, "\n");
  } else if (is_word(line, "reboot")) {
    reboot();
  } else if (is_word(line, "triple")) {
    triple_fault();
  } else {
    fail(&r, NOT_FOUND, "bare guest: no such command");
  }
  call_output(stream, r.failed ? CHANNEL_STDERR : CHANNEL_STDOUT, r.out.start, r.out.used);
  call_exit(stream, r.code);
}
