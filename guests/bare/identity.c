/* What the handshake gave us. Each field that is present replaces the former one. */
#include "guest.h"
#include "protocol.h"

enum { SLOT_BYTES = 512, LIST_BYTES = 49152 };

u64 identity_generation;

static struct slot { u8 tag; const char *name; u8 bytes[SLOT_BYTES]; u32 used; } slots[] = {
  {TAG_SANDBOX_ID, "sandbox_id", {0}, 0}, {TAG_HOSTNAME, "hostname", {0}, 0}, {TAG_MACHINE_ID, "machine_id", {0}, 0},
  {TAG_BOOT_ID, "boot_id", {0}, 0},       {TAG_ENTROPY, "entropy", {0}, 0},   {TAG_CLOCK, "clock", {0}, 0},
  {TAG_CWD, "cwd", {0}, 0},               {TAG_USER, "user", {0}, 0},         {TAG_TIMEZONE, "timezone", {0}, 0},
};
enum { SLOTS = sizeof slots / sizeof slots[0], CLOCK_SLOT = 5, HOSTNAME_SLOT = 1 };

/* One more than the place of each tag in `slots`, 0: none. Looked up instead of searched: instructions are dear here. */
static const u8 places[] = {
  [TAG_SANDBOX_ID] = 1, [TAG_HOSTNAME] = 2, [TAG_MACHINE_ID] = 3, [TAG_BOOT_ID] = 4, [TAG_ENTROPY] = 5,
  [TAG_CLOCK] = 6,      [TAG_CWD] = 7,      [TAG_USER] = 8,       [TAG_TIMEZONE] = 9,
};

/* Environment and name servers are lists; their lines are kept as they will be shown. */
static char list_bytes[LIST_BYTES];
static struct text lists = {list_bytes, LIST_BYTES, 0};
static u64 clock_set_at;

static void take(const struct field *f) {
  if (f->tag >= sizeof places || places[f->tag] == 0) return;
  u32 i = places[f->tag] - 1u;
  slots[i].used = f->length < SLOT_BYTES - 1 ? f->length : SLOT_BYTES - 1;
  copy(slots[i].bytes, f->value, slots[i].used);
  slots[i].bytes[slots[i].used] = 0;
  if (i == CLOCK_SLOT) clock_set_at = clock_ns();
}

bool identity_apply(const u8 *payload, u32 n) {
  struct field f;
  struct reader check = {payload, payload + n, true}, r = check;
  bool replaces_lists = false;
  while (next_field(&check, &f)) replaces_lists |= f.tag == TAG_ENV || f.tag == TAG_DNS;
  if (!check.ok) return false;
  if (replaces_lists) lists.used = 0;
  while (next_field(&r, &f)) {
    if (f.tag == TAG_ENV || f.tag == TAG_DNS) {
      add_bytes(&lists, f.tag == TAG_ENV ? "env=" : "dns=", 4);
      add_bytes(&lists, f.value, f.length);
      add_bytes(&lists, "\n", 1);
    } else {
      take(&f);
    }
  }
  identity_generation++;
  return true;
}

void identity_describe(struct text *out) {
  add(out, "generation=");
  add_number(out, identity_generation);
  add(out, "\n");
  for (u32 i = 0; i < SLOTS; i++) {
    if (slots[i].used == 0) continue;
    add(out, slots[i].name);
    add(out, "=");
    if (slots[i].tag == TAG_ENTROPY) add_hex(out, slots[i].bytes, slots[i].used);
    else if (slots[i].tag == TAG_CLOCK) add_number(out, little_endian(slots[i].bytes, 8));
    else add_bytes(out, slots[i].bytes, slots[i].used);
    add(out, "\n");
  }
  add_bytes(out, lists.start, lists.used);
}

const char *identity_hostname(void) { return (const char *)slots[HOSTNAME_SLOT].bytes; }

/* The wall clock that the handshake set, carried on; ns since 1970, 0 before. */
u64 identity_now(void) {
  if (slots[CLOCK_SLOT].used != 8) return 0;
  return little_endian(slots[CLOCK_SLOT].bytes, 8) + clock_ns() - clock_set_at;
}
