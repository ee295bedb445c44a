/* What the parts of the bare guest offer each other. One section per file. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef _Bool bool;
enum { false, true };

/* Keeps the compiler from moving memory accesses; x86 orders stores itself. */
#define BARRIER() __asm__ volatile("" ::: "memory")

/* ---- text.c */
void copy(void *to, const void *from, u64 n);
bool equal(const void *a, const void *b, u64 n);
u32 length(const char *s);
bool is_word(const char *s, const char *word);
const char *after_word(const char *s);
u64 number(const char *s);
/* A text that grows and silently stops at its end; room for the largest answer. */
struct text {
  char *start;
  u32 size, used;
};
void add_bytes(struct text *t, const void *bytes, u32 n);
void add(struct text *t, const char *s);
void add_number(struct text *t, u64 value);
void add_hex(struct text *t, const u8 *bytes, u32 n);

/* ---- cpu.c */
enum { CONSOLE_PORT = 0x3f8, KEYBOARD_PORT = 0x64 };
static inline void outb(u16 port, u8 value) { __asm__ volatile("outb %0, %1" ::"a"(value), "d"(port)); }
void console(const char *s);
void map_low_4_gib(void);
void interrupts_from(u32 irq);
void end_of_interrupt(void);
void clock_start(void);
u64 clock_ns(void);
void reboot(void);
void triple_fault(void);
void halt_forever(void) __attribute__((noreturn));

/* ---- boot.c */
extern u64 memory_bytes;

/* ---- virtio.c */
enum { QUEUE_SIZE = 64, VIRTIO_BLOCK = 2, VIRTIO_VSOCK = 19 };
enum { DESC_NEXT = 1, DESC_WRITE = 2 };
struct descriptor {
  u64 address;
  u32 length;
  u16 flags, next;
};
struct queue {
  struct descriptor descriptors[QUEUE_SIZE] __attribute__((aligned(4096)));
  struct { u16 flags, index, ring[QUEUE_SIZE]; } available __attribute__((aligned(64)));
  struct { u16 flags; volatile u16 index; struct { u32 id, length; } ring[QUEUE_SIZE]; } used __attribute__((aligned(64)));
  u16 taken; /* used entries that we have seen */
};
struct device {
  volatile u32 *registers;
  u32 irq, kind;
};
void device_start(struct device *d, struct queue *queues, u32 count);
void queue_offer(struct queue *q, u16 head);
void queue_notify(struct device *d, u32 queue);
bool queue_take(struct queue *q, u32 *id);
u64 device_config(struct device *d, u32 offset);
void device_acknowledge(struct device *d);

/* ---- blk.c */
enum { SECTOR_BYTES = 512, MAX_DRIVES = 4 };
extern u32 drives;
void drive_add(struct device *d);
u64 drive_bytes(u32 drive);
/* Sector 0 to or from `data`. 0 is success, else virtio's status (255: the device never answered). */
u8 drive_transfer(u32 drive, bool write, void *data);

/* ---- vsock.c */
void vsock_start(struct device *d);
void vsock_service(void);
/* Bytes to the host, in order. False when there is no room: the caller keeps them. */
bool send_bytes(const void *bytes, u32 n);
u8 *send_place(u32 n);
u32 send_room(void);
void forget_unsent(void);
void hang_up(void);

/* ---- frame.c */
void frames_reset(void);
void frames_hunt(void);
void frames_in(const u8 *bytes, u32 n);
bool frame_out(u8 type, u8 channel, u8 flags, u32 stream, const void *payload, u32 n);
u64 little_endian(const u8 *bytes, u32 n);
/* Payloads of fields. */
struct fields { u8 *start; u32 size, used; };
struct field { u8 tag; u32 length; const u8 *value; };
void put(struct fields *f, u8 tag, const void *value, u32 n);
void put_number(struct fields *f, u8 tag, u64 value, u32 bytes);
void put_text(struct fields *f, u8 tag, const char *value);
/* Steps through a payload; `ok` turns false when a field passes the end. */
struct reader { const u8 *at, *end; bool ok; };
bool next_field(struct reader *r, struct field *out);

/* ---- session.c */
struct call;
void session_hello(const u8 *payload, u32 n);
void session_frame(u8 type, u8 channel, u8 flags, u32 stream, const u8 *payload, u32 n);
void session_lost(void);
void session_pump(void);
void session_fault(const char *why);
/* For commands: output, a command that goes on, and its end. */
void call_output(u32 stream, u8 channel, const char *bytes, u32 n);
void call_exit(u32 stream, u32 code);
bool call_keep_echo(u32 stream);
bool call_keep_fill(u32 stream, u64 bytes);

/* ---- identity.c */
extern u64 identity_generation;
bool identity_apply(const u8 *payload, u32 n);
void identity_describe(struct text *out);
const char *identity_hostname(void);
u64 identity_now(void);

/* ---- commands.c */
/* Runs the line; `stdin` says that a stream of input follows. */
void command_run(u32 stream, char *line, bool has_stdin);
