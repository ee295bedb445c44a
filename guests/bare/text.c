/* Bytes, numbers and words. */
#include "guest.h"

/* String instructions: where ring 0 is emulated, each instruction costs about a microsecond. */
void copy(void *to, const void *from, u64 n) {
  u64 words = n >> 3, rest = n & 7;
  __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words)::"memory");
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(rest)::"memory");
}

bool equal(const void *a, const void *b, u64 n) {
  const u8 *x = a, *y = b;
  while (n--)
    if (*x++ != *y++) return false;
  return true;
}

u32 length(const char *s) {
  u32 n = 0;
  while (s[n]) n++;
  return n;
}

/* Does `s` begin with `word`, and does the word end there? */
bool is_word(const char *s, const char *word) {
  while (*word)
    if (*s++ != *word++) return false;
  return *s == 0 || *s == ' ';
}

const char *after_word(const char *s) {
  while (*s && *s != ' ') s++;
  while (*s == ' ') s++;
  return s;
}

u64 number(const char *s) {
  u64 value = 0;
  while (*s >= '0' && *s <= '9') value = value * 10 + (u64)(*s++ - '0');
  return value;
}

void add_bytes(struct text *t, const void *bytes, u32 n) {
  if (n > t->size - t->used) n = t->size - t->used;
  copy(t->start + t->used, bytes, n);
  t->used += n;
}

void add(struct text *t, const char *s) { add_bytes(t, s, length(s)); }

void add_number(struct text *t, u64 value) {
  char digits[20];
  u32 n = 0;
  do digits[sizeof digits - ++n] = (char)('0' + value % 10);
  while (value /= 10);
  add_bytes(t, digits + sizeof digits - n, n);
}

void add_hex(struct text *t, const u8 *bytes, u32 n) {
  for (u32 i = 0; i < n; i++) {
    char pair[2] = {"0123456789abcdef"[bytes[i] >> 4], "0123456789abcdef"[bytes[i] & 15]};
    add_bytes(t, pair, 2);
  }
}
