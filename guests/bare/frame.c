/* Frames in and out, and payloads of fields. The incoming side is a state machine fed with whatever arrives. */
#include "guest.h"
#include "protocol.h"

static enum { HUNT, HEADER, PAYLOAD, TRAILER } state;
static u8 header[HEADER_BYTES], trailer[TRAILER_BYTES], payload[MAX_PAYLOAD];
static u32 have, need;
static u32 sequence_in, sequence_out;

/* Four tables, so that a header takes four steps: instructions are dear here. Filled at the first use, before any snapshot. */
static u32 crc_tables[4][256];

static void fill_tables(void) {
  for (u32 i = 0; i < 256; i++) {
    u32 c = i;
    for (u32 bit = 0; bit < 8; bit++) c = c & 1 ? 0xedb88320 ^ c >> 1 : c >> 1;
    crc_tables[0][i] = c;
  }
  for (u32 t = 1; t < 4; t++)
    for (u32 i = 0; i < 256; i++) crc_tables[t][i] = crc_tables[t - 1][i] >> 8 ^ crc_tables[0][(u8)crc_tables[t - 1][i]];
}

static u32 word(const u8 *bytes) { return *(const u32 *)bytes; }

static u32 checksum(const u8 *bytes) {
  if (!crc_tables[0][1]) fill_tables();
  u32 crc = ~0u;
  for (u32 at = 0; at < 16; at += 4) {
    crc ^= word(bytes + at);
    crc = crc_tables[3][(u8)crc] ^ crc_tables[2][(u8)(crc >> 8)] ^ crc_tables[1][(u8)(crc >> 16)] ^ crc_tables[0][crc >> 24];
  }
  return ~crc;
}

u64 little_endian(const u8 *bytes, u32 n) {
  u64 value = 0;
  while (n--) value = value << 8 | bytes[n];
  return value;
}

static bool header_ok(void) {
  return header[0] == MAGIC && word(header + 8) <= MAX_PAYLOAD && word(header + 16) == checksum(header);
}

void frames_hunt(void) {
  state = HUNT;
  have = 0;
}

void frames_reset(void) {
  frames_hunt();
  sequence_out = 0;
}

static void out_of_step(const char *why) {
  session_fault(why);
  frames_hunt();
}

static void begin_payload(void) {
  have = 0;
  need = word(header + 8);
  state = need ? PAYLOAD : TRAILER;
}

/* The window holds `have` bytes. Drops from its front up to the next byte that could begin a HELLO. */
static void hunt(void) {
  if (have < HEADER_BYTES) return;
  if (header[1] == FRAME_HELLO && word(header + 12) == 0 && header_ok()) {
    sequence_in = 0;
    begin_payload();
    return;
  }
  u32 skip = 1;
  while (skip < HEADER_BYTES && header[skip] != MAGIC) skip++;
  have -= skip;
  copy(header, header + skip, have);
}

static void header_in(void) {
  if (have < HEADER_BYTES) return;
  bool hello = header[1] == FRAME_HELLO && word(header + 12) == 0;
  if (!header_ok() || header[3] & ~FLAG_FIN) out_of_step("bad header");
  else if (!hello && word(header + 12) != sequence_in) out_of_step("a frame is missing");
  else {
    if (hello) sequence_in = 0;
    begin_payload();
  }
}

static void frame_complete(void) {
  if (word(trailer) != ~word(header + 16)) {
    out_of_step("bad trailer");
    return;
  }
  sequence_in++;
  state = HEADER;
  have = 0;
  u32 n = word(header + 8);
  if (header[1] == FRAME_HELLO) {
    sequence_out = 0;
    session_hello(payload, n);
  } else {
    session_frame(header[1], header[2], header[3], word(header + 4), payload, n);
  }
}

/* Moves bytes into `to` until it holds `want`. */
static u32 gather(u8 *to, u32 want, const u8 *bytes, u32 n) {
  u32 part = want - have < n ? want - have : n;
  copy(to + have, bytes, part);
  have += part;
  return part;
}

void frames_in(const u8 *bytes, u32 n) {
  while (n) {
    u32 part = 0;
    switch (state) {
      case HUNT:
        if (have == 0 && *bytes != MAGIC) part = 1;
        else part = gather(header, HEADER_BYTES, bytes, n), hunt();
        break;
      case HEADER:
        part = gather(header, HEADER_BYTES, bytes, n);
        header_in();
        break;
      case PAYLOAD:
        part = gather(payload, need, bytes, n);
        if (have == need) state = TRAILER, have = 0;
        break;
      case TRAILER:
        part = gather(trailer, TRAILER_BYTES, bytes, n);
        if (have == TRAILER_BYTES) frame_complete();
        break;
    }
    bytes += part;
    n -= part;
  }
}

/* False when there is no room for the whole frame; nothing is sent then. */
bool frame_out(u8 type, u8 channel, u8 flags, u32 stream, const void *bytes, u32 n) {
  if (send_room() < HEADER_BYTES + n + TRAILER_BYTES) return false;
  u32 head[5] = {MAGIC | (u32)type << 8 | (u32)channel << 16 | (u32)flags << 24, stream, n, sequence_out++, 0};
  head[4] = checksum((u8 *)head);
  u32 tail = ~head[4];
  u8 *whole = send_place(HEADER_BYTES + n + TRAILER_BYTES);
  if (whole) {
    __builtin_memcpy(whole, head, HEADER_BYTES);
    copy(whole + HEADER_BYTES, bytes, n);
    __builtin_memcpy(whole + HEADER_BYTES + n, &tail, TRAILER_BYTES);
    return true;
  }
  send_bytes(head, sizeof head);
  send_bytes(bytes, n);
  send_bytes(&tail, sizeof tail);
  return true;
}

void put(struct fields *f, u8 tag, const void *value, u32 n) {
  if (f->size - f->used < n + 5) return;
  f->start[f->used] = tag;
  __builtin_memcpy(f->start + f->used + 1, &n, 4);
  copy(f->start + f->used + 5, value, n);
  f->used += n + 5;
}

void put_number(struct fields *f, u8 tag, u64 value, u32 bytes) {
  if (f->size - f->used < sizeof value + 5) return put(f, tag, &value, bytes);
  u8 *at = f->start + f->used;
  at[0] = tag;
  __builtin_memcpy(at + 1, &bytes, 4);
  __builtin_memcpy(at + 5, &value, sizeof value); /* what is behind its own bytes the next field replaces */
  f->used += bytes + 5;
}

void put_text(struct fields *f, u8 tag, const char *value) { put(f, tag, value, length(value)); }

bool next_field(struct reader *r, struct field *out) {
  if (r->at == r->end) return false;
  u64 left = (u64)(r->end - r->at);
  if (left < 5 || word(r->at + 1) > left - 5) {
    r->ok = false;
    return false;
  }
  *out = (struct field){r->at[0], word(r->at + 1), r->at + 5};
  r->at += 5 + out->length;
  return true;
}
