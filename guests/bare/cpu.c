/* The processor and what sits around it: page tables, interrupts, clock, the two ways to die. */
#include "guest.h"

enum { INTERRUPT_VECTOR = 0x30, PAGE_2M_PRESENT_WRITABLE = 0x83, PRESENT_WRITABLE = 3 };
#define LOCAL_APIC ((volatile u8 *)0xfee00000UL)
#define IO_APIC ((volatile u8 *)0xfec00000UL)
#define REGISTER(base, offset) (*(volatile u32 *)((base) + (offset)))

void on_interrupt(void);
void on_exception(void);

void console(const char *s) {
  while (*s) outb(CONSOLE_PORT, (u8)*s++);
}

void halt_forever(void) {
  for (;;) __asm__ volatile("cli; hlt");
}

void panic(void) {
  console("bare guest: unexpected exception\n");
  halt_forever();
}

/* Firecracker maps the first GiB; the devices and APICs lie in the fourth. */
void map_low_4_gib(void) {
  static u64 directories[4][512] __attribute__((aligned(4096)));
  u64 cr3;
  __asm__("mov %%cr3, %0" : "=r"(cr3));
  u64 *level4 = (u64 *)(cr3 & ~0xfffUL);
  u64 *level3 = (u64 *)(level4[0] & 0xffffffffff000UL);
  for (u64 gib = 0; gib < 4; gib++) {
    for (u64 i = 0; i < 512; i++) directories[gib][i] = gib << 30 | i << 21 | PAGE_2M_PRESENT_WRITABLE;
    level3[gib] = (u64)directories[gib] | PRESENT_WRITABLE;
  }
  __asm__ volatile("mov %0, %%cr3" ::"r"(cr3) : "memory");
}

/* Lets exactly one device interrupt us, through the IOAPIC; everything else is an exception and ends the guest. */
void interrupts_from(u32 irq) {
  static struct { u16 low, selector; u8 stack, type; u16 middle; u32 high, zero; } table[256] __attribute__((aligned(4096)));
  u16 code;
  __asm__("mov %%cs, %0" : "=r"(code));
  for (u32 i = 0; i < 256; i++) {
    u64 entry = (u64)(i == INTERRUPT_VECTOR ? on_interrupt : on_exception);
    table[i].low = (u16)entry;
    table[i].selector = code;
    table[i].type = 0x8e; /* present, 64-bit interrupt gate */
    table[i].middle = (u16)(entry >> 16);
    table[i].high = (u32)(entry >> 32);
  }
  struct { u16 limit; u64 base; } __attribute__((packed)) pointer = {sizeof table - 1, (u64)table};
  __asm__ volatile("lidt %0" ::"m"(pointer));

  outb(0x21, 0xff); /* both 8259 masked */
  outb(0xa1, 0xff);
  REGISTER(LOCAL_APIC, 0xf0) = 0x1ff; /* enabled, spurious vector 255 */
  REGISTER(LOCAL_APIC, 0x80) = 0;     /* every priority */
  REGISTER(IO_APIC, 0) = 0x11 + 2 * irq;
  REGISTER(IO_APIC, 0x10) = 0; /* to APIC 0 */
  REGISTER(IO_APIC, 0) = 0x10 + 2 * irq;
  REGISTER(IO_APIC, 0x10) = INTERRUPT_VECTOR; /* edge, fixed, unmasked */
}

void end_of_interrupt(void) { REGISTER(LOCAL_APIC, 0xb0) = 0; }

/* kvm-clock (Linux Documentation/virt/kvm/x86/msr.rst): the host keeps this page up to date, also over a restore. */
static struct {
  volatile u32 version;
  u32 pad;
  u64 tsc, system_time;
  u32 multiplier;
  signed char shift;
  u8 flags, pad2[2];
} __attribute__((aligned(4096))) clock_page;

static u64 tsc(void) {
  u32 low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (u64)high << 32 | low;
}

void clock_start(void) {
  u64 address = (u64)&clock_page | 1;
  __asm__ volatile("wrmsr" ::"c"(0x4b564d01), "a"((u32)address), "d"((u32)(address >> 32)));
}

u64 clock_ns(void) {
  u64 ns;
  u32 version;
  do {
    version = clock_page.version;
    BARRIER();
    u64 delta = tsc() - clock_page.tsc;
    delta = clock_page.shift < 0 ? delta >> -clock_page.shift : delta << clock_page.shift;
    ns = clock_page.system_time + (delta >> 32) * clock_page.multiplier + ((delta & 0xffffffff) * clock_page.multiplier >> 32);
    BARRIER();
  } while (version & 1 || version != clock_page.version);
  return ns;
}

/* The keyboard controller's reset line: Firecracker ends with code 0. */
void reboot(void) {
  outb(KEYBOARD_PORT, 0xfe);
  halt_forever();
}

void triple_fault(void) {
  struct { u16 limit; u64 base; } __attribute__((packed)) nothing = {0, 0};
  __asm__ volatile("lidt %0" ::"m"(nothing));
  *(volatile u64 *)(1UL << 40) = 0; /* a page fault that nobody can take */
  halt_forever();
}
