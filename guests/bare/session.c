/* The session: HELLO, calls, and the commands that stay open because they have input to wait for or output to send. */
#include "guest.h"
#include "protocol.h"

enum { MAX_CALLS = 8, CHUNK = 16384, GRANT_AFTER = 65536, LINE = 60000, ANSWER = 1024 };
/* A control frame always finds room while the pumps leave this much free. */
enum { CONTROL_ROOM = 131072 };

/* ECHO sends back what it gets, until FIN. FILL makes output out of nothing. */
enum kind { FREE, ECHO, FILL };
static struct call {
  enum kind kind;
  bool fin;
  u32 stream;
  u64 may_send, may_receive, to_grant;
  u64 left;              /* FILL: bytes to make */
  u32 put, got;          /* ECHO: positions in the buffer, not wrapped */
  u8 *buffer;
} calls[MAX_CALLS];
static u32 kept; /* of them that are not free */
static u8 buffers[MAX_CALLS][INITIAL_CREDIT];

static bool in_session;
static u64 process_ids;
static char line[LINE + 1];
static u8 answer_bytes[ANSWER];

static struct call *find(u32 stream) {
  if (!kept) return 0;
  for (u32 i = 0; i < MAX_CALLS; i++)
    if (calls[i].kind != FREE && calls[i].stream == stream) return &calls[i];
  return 0;
}

static void forget_calls(void) {
  for (u32 i = 0; i < MAX_CALLS; i++) calls[i].kind = FREE;
  kept = 0;
}

static void forget(struct call *c) {
  c->kind = FREE;
  kept--;
}

void session_lost(void) {
  in_session = false;
  forget_calls();
  frames_reset();
}

static struct fields answer(void) { return (struct fields){answer_bytes, ANSWER, 0}; }

/* A control frame without room means a host that sends and never reads: it loses its connection. */
static void control(u8 type, u32 stream, const void *payload, u32 n) {
  if (!frame_out(type, 0, 0, stream, payload, n)) hang_up();
}

static void end(u32 stream, u8 status, const char *message) {
  struct fields f = answer();
  put_number(&f, TAG_STATUS, status, 1);
  if (message) put_text(&f, TAG_MESSAGE, message);
  control(FRAME_END, stream, f.start, f.used);
}

void session_fault(const char *why) {
  if (!in_session) return;
  struct fields f = answer();
  put_number(&f, TAG_STATUS, STATUS_PROTOCOL, 1);
  put_text(&f, TAG_MESSAGE, why);
  control(FRAME_FAULT, 0, f.start, f.used);
  in_session = false;
  forget_calls();
}

static void put_self(struct fields *f) {
  put_number(f, TAG_STATUS, STATUS_OK, 1);
  put_number(f, TAG_VERSION, PROTOCOL_VERSION, 2);
  put_text(f, TAG_AGENT, "stacyvm-bare/1");
  put_text(f, TAG_GUEST, "bare");
  put_number(f, TAG_GENERATION, identity_generation, 8);
  put_number(f, TAG_UPTIME, clock_ns(), 8);
}

void session_hello(const u8 *payload, u32 n) {
  struct reader r = {payload, payload + n, true};
  struct field f, nonce = {0}, identity = {0};
  u64 lowest = 0, highest = 0;
  while (next_field(&r, &f)) {
    if (f.tag == TAG_VERSION_MIN && f.length <= 8) lowest = little_endian(f.value, f.length);
    else if (f.tag == TAG_VERSION_MAX && f.length <= 8) highest = little_endian(f.value, f.length);
    else if (f.tag == TAG_NONCE) nonce = f;
    else if (f.tag == TAG_IDENTITY) identity = f;
  }
  forget_unsent();
  forget_calls();
  in_session = true;
  const char *wrong = 0;
  if (!r.ok || nonce.length != 16) wrong = "malformed HELLO";
  else if (lowest > PROTOCOL_VERSION || highest < PROTOCOL_VERSION) wrong = "no common protocol version";
  else if (identity.value && !identity_apply(identity.value, identity.length)) wrong = "malformed identity";
  struct fields ack = answer();
  if (wrong) {
    put_number(&ack, TAG_STATUS, STATUS_INVALID, 1);
    put_text(&ack, TAG_MESSAGE, wrong);
  } else {
    put_self(&ack);
  }
  put(&ack, TAG_NONCE, nonce.value, nonce.length);
  control(FRAME_HELLO_ACK, 0, ack.start, ack.used);
}

void call_output(u32 stream, u8 channel, const char *bytes, u32 n) {
  if (n && !frame_out(FRAME_DATA, channel, 0, stream, bytes, n)) hang_up();
}

static void end_command(u32 stream, u32 code, u32 signal, u8 reason) {
  struct fields f = answer();
  put_number(&f, TAG_STATUS, STATUS_OK, 1);
  put_number(&f, TAG_EXIT_CODE, code, 1);
  if (signal) put_number(&f, TAG_SIGNAL, signal, 1);
  put_number(&f, TAG_REASON, reason, 1);
  control(FRAME_END, stream, f.start, f.used);
}

void call_exit(u32 stream, u32 code) { end_command(stream, code, 0, REASON_EXITED); }

static bool keep(u32 stream, enum kind kind, u64 left) {
  for (u32 i = 0; i < MAX_CALLS; i++) {
    if (calls[i].kind != FREE) continue;
    calls[i] = (struct call){kind, false, stream, INITIAL_CREDIT, INITIAL_CREDIT, 0, left, 0, 0, buffers[i]};
    kept++;
    return true;
  }
  return false;
}

bool call_keep_echo(u32 stream) { return keep(stream, ECHO, 0); }
bool call_keep_fill(u32 stream, u64 bytes) { return keep(stream, FILL, bytes); }

static bool last_is_sh(const u8 *name, u32 n) {
  while (n && name[n - 1] != '/') {
    if (name[n - 1] == 'h' && n > 1 && name[n - 2] == 's') return true;
    n--;
  }
  return false;
}

/* One line out of ARGV: the words, or what stands behind `sh -c`. */
static void exec(u32 stream, struct reader r) {
  struct field f;
  u32 words = 0;
  bool shell = false, has_stdin = false, terminal = false;
  struct text text = {line, LINE, 0};
  while (next_field(&r, &f)) {
    if (f.tag == TAG_STDIN && f.length == 1) has_stdin = f.value[0] != 0;
    if (f.tag == TAG_PTY) terminal = true;
    if (f.tag != TAG_ARGV) continue;
    words++;
    if (words == 1) shell = last_is_sh(f.value, f.length);
    if (words == 2) shell = shell && f.length >= 2 && f.value[0] == '-' && f.value[f.length - 1] == 'c';
    if (words == 3 && shell) text.used = 0;
    if (words > 3 && shell) continue;
    if (text.used) add(&text, " ");
    add_bytes(&text, f.value, f.length);
  }
  line[text.used] = 0;
  if (!r.ok || words == 0) {
    end(stream, STATUS_INVALID, "EXEC without arguments");
    return;
  }
  if (terminal) {
    end(stream, STATUS_NOT_SUPPORTED, "the bare guest has no terminals");
    return;
  }
  struct fields started = answer();
  process_ids++;
  put_number(&started, TAG_PROCESS_ID, process_ids, 8);
  put_number(&started, TAG_PID, process_ids + 1, 4);
  control(FRAME_EVENT, stream, started.start, started.used);
  command_run(stream, line, has_stdin);
}

static void info(u32 stream) {
  struct fields f = answer();
  u64 disk = drives ? drive_bytes(0) : 0;
  put_number(&f, TAG_STATUS, STATUS_OK, 1);
  put_text(&f, TAG_KERNEL, "bare");
  put_number(&f, TAG_CPUS, 1, 2);
  put_number(&f, TAG_LOAD, 0, 4);
  put_number(&f, TAG_MEMORY_TOTAL, memory_bytes, 8);
  put_number(&f, TAG_MEMORY_FREE, memory_bytes - (32UL << 20), 8);
  put_number(&f, TAG_DISK_TOTAL, disk, 8);
  put_number(&f, TAG_DISK_FREE, disk, 8);
  put_number(&f, TAG_CPU_NS, 0, 8);
  put_number(&f, TAG_NOW, identity_now(), 8);
  put_number(&f, TAG_MINOR_FAULTS, 0, 8);
  put_number(&f, TAG_UPTIME, clock_ns(), 8);
  control(FRAME_END, stream, f.start, f.used);
}

static void identity(u32 stream, struct reader r) {
  struct field f;
  while (next_field(&r, &f))
    if (f.tag == TAG_IDENTITY && !identity_apply(f.value, f.length)) r.ok = false;
  if (!r.ok) {
    end(stream, STATUS_INVALID, "malformed identity");
    return;
  }
  struct fields done = answer();
  put_self(&done);
  control(FRAME_END, stream, done.start, done.used);
}

static void open_call(u32 stream, const u8 *payload, u32 n) {
  if (n < 2) {
    session_fault("OPEN without a method");
    frames_hunt();
    return;
  }
  struct reader r = {payload + 2, payload + n, true};
  switch (little_endian(payload, 2)) {
    case METHOD_EXEC:
      exec(stream, r);
      break;
    case METHOD_INFO:
      info(stream);
      break;
    case METHOD_IDENTITY:
      identity(stream, r);
      break;
    /* Transfers end before they are answered, and commands move only when spoken to: nothing to flush or to stop. */
    case METHOD_SYNC:
    case METHOD_FREEZE:
    case METHOD_THAW:
    case METHOD_EXERCISE:
      end(stream, STATUS_OK, 0);
      break;
    case METHOD_SHUTDOWN:
      reboot();
      break;
    default:
      end(stream, STATUS_NOT_SUPPORTED, "the bare guest cannot do this");
  }
}

static void input(struct call *c, u8 flags, const u8 *bytes, u32 n) {
  if (n > c->may_receive) {
    session_fault("more data than was granted");
    frames_hunt();
    return;
  }
  c->may_receive -= n;
  if (c->kind == ECHO) {
    u32 offset = c->put % INITIAL_CREDIT, first = n < INITIAL_CREDIT - offset ? n : INITIAL_CREDIT - offset;
    copy(c->buffer + offset, bytes, first);
    copy(c->buffer, bytes + first, n - first);
    c->put += n;
  }
  if (flags & FLAG_FIN) c->fin = true;
}

static void signalled(struct call *c, u32 signal, u8 reason) {
  forget(c);
  end_command(c->stream, 128 + signal, signal, reason);
}

static void control_in(struct call *c, const u8 *payload, u32 n) {
  struct reader r = {payload, payload + n, true};
  struct field f;
  while (next_field(&r, &f))
    if (f.tag == TAG_SIGNAL && f.length == 1 && f.value[0] > 0 && f.value[0] < 65) {
      signalled(c, f.value[0], REASON_EXITED);
      return;
    }
}

void session_frame(u8 type, u8 channel, u8 flags, u32 stream, const u8 *payload, u32 n) {
  (void)channel;
  struct call *c = find(stream);
  switch (type) {
    case FRAME_OPEN:
      if (stream == 0 || c) {
        session_fault("OPEN of a stream that is in use");
        frames_hunt();
      } else {
        open_call(stream, payload, n);
      }
      break;
    case FRAME_DATA:
      if (c) input(c, flags, payload, n);
      break;
    case FRAME_CREDIT:
      if (c && n == 4) c->may_send += little_endian(payload, 4);
      break;
    case FRAME_CTRL:
      if (c) control_in(c, payload, n);
      break;
    case FRAME_CANCEL:
      if (c) signalled(c, 15, REASON_CANCELLED);
      break;
    case FRAME_PING:
      control(FRAME_PONG, 0, payload, n < 64 ? n : 64);
      break;
    case FRAME_PONG:
      break;
    default:
      session_fault("a frame that the host may not send");
      frames_hunt();
  }
}

static bool pump_echo(struct call *c, u32 room) {
  u32 n = c->put - c->got, offset = c->got % INITIAL_CREDIT;
  if (n > INITIAL_CREDIT - offset) n = INITIAL_CREDIT - offset;
  if (n > c->may_send) n = (u32)c->may_send;
  if (n > room) n = room;
  if (n == 0) return false;
  frame_out(FRAME_DATA, CHANNEL_STDOUT, 0, c->stream, c->buffer + offset, n);
  c->got += n;
  c->may_send -= n;
  c->to_grant += n;
  if (c->to_grant >= GRANT_AFTER && !c->fin) {
    u32 grant = (u32)c->to_grant;
    c->to_grant = 0;
    c->may_receive += grant;
    frame_out(FRAME_CREDIT, 0, 0, c->stream, &grant, 4);
  }
  return true;
}

static bool pump_fill(struct call *c, u32 room) {
  static u8 pattern[CHUNK] = "abcdefghijklmnopqrstuvwxyz-abcdefghijklmnopqrstuvwxyz-123456789\n";
  for (u32 filled = 64; pattern[CHUNK - 1] == 0 && filled < CHUNK; filled *= 2) copy(pattern + filled, pattern, filled);
  u64 n = c->left;
  if (n > c->may_send) n = c->may_send;
  if (n > room) n = room;
  if (n == 0) return false;
  frame_out(FRAME_DATA, CHANNEL_STDOUT, 0, c->stream, pattern, (u32)n);
  c->left -= n;
  c->may_send -= n;
  return true;
}

/* Called after every event: moves what may move, one chunk per command and round, so that none starves another. */
void session_pump(void) {
  bool moved = kept != 0;
  while (moved && in_session) {
    moved = false;
    for (u32 i = 0; i < MAX_CALLS; i++) {
      struct call *c = &calls[i];
      if (c->kind == FREE) continue;
      u32 room = send_room();
      room = room > CONTROL_ROOM ? room - CONTROL_ROOM : 0;
      if (room > CHUNK) room = CHUNK;
      moved |= c->kind == ECHO ? pump_echo(c, room) : pump_fill(c, room);
      bool done = c->kind == ECHO ? c->fin && c->put == c->got : c->left == 0;
      if (!done) continue;
      forget(c);
      call_exit(c->stream, 0);
    }
  }
}
