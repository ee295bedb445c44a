/* From Firecracker's hand-over to the event loop. */
#include "guest.h"

enum { MAX_DEVICES = 8, ZERO_PAGE_E820_COUNT = 0x1e8, ZERO_PAGE_CMDLINE = 0x228, ZERO_PAGE_E820 = 0x2d0, RAM = 1 };

u64 memory_bytes;

static u64 hexadecimal(const char **at) {
  u64 value = 0;
  for (;; (*at)++) {
    char c = **at;
    if (c >= '0' && c <= '9') value = value << 4 | (u64)(c - '0');
    else if (c >= 'a' && c <= 'f') value = value << 4 | (u64)(c - 'a' + 10);
    else return value;
  }
}

/* Firecracker appends `virtio_mmio.device=4K@0xADDRESS:IRQ` for each device. */
static u32 find_devices(const char *cmdline, struct device *devices) {
  u32 n = 0;
  for (const char *at = cmdline; *at && n < MAX_DEVICES; at++) {
    if (!equal(at, "4K@0x", 5)) continue;
    at += 5;
    devices[n].registers = (volatile u32 *)hexadecimal(&at);
    devices[n].irq = (u32)number(at + 1);
    devices[n].kind = 0;
    n++;
  }
  return n;
}

/* The sum of the usable ranges, rounded to MiB: the first MiB has holes. */
static void measure_memory(const u8 *zero_page) {
  for (u32 i = 0; i < zero_page[ZERO_PAGE_E820_COUNT]; i++) {
    const u8 *entry = zero_page + ZERO_PAGE_E820 + 20 * i;
    u64 start = *(const u64 *)entry, size = *(const u64 *)(entry + 8);
    if (*(const u32 *)(entry + 16) == RAM && start >= 0x100000) memory_bytes += size + (start == 0x100000 ? start : 0);
  }
}

static void event_loop(void) {
  for (;;) {
    vsock_service();
    /* sti takes effect after the next instruction, so an interrupt cannot slip in between and be slept over. */
    __asm__ volatile("sti; hlt; cli" ::: "memory");
  }
}

void resume_after_interrupt(void) {
  end_of_interrupt();
  event_loop();
}

void boot(const u8 *zero_page) {
  struct device devices[MAX_DEVICES], *vsock = 0;
  measure_memory(zero_page);
  map_low_4_gib();
  clock_start();
  u32 count = find_devices((const char *)(u64) * (const u32 *)(zero_page + ZERO_PAGE_CMDLINE), devices);
  for (u32 i = 0; i < count; i++) {
    devices[i].kind = devices[i].registers[2];
    if (devices[i].kind == VIRTIO_BLOCK) drive_add(&devices[i]);
    if (devices[i].kind == VIRTIO_VSOCK) vsock = &devices[i];
  }
  if (!vsock) {
    console("bare guest: no vsock device\n");
    halt_forever();
  }
  interrupts_from(vsock->irq);
  vsock_start(vsock);
  console("bare guest: ready\n");
  event_loop();
}
