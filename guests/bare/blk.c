/* Drives: one sector at a time, polled. Their interrupts stay masked. */
#include "guest.h"

enum { BLOCK_READ = 0, BLOCK_WRITE = 1, NO_ANSWER = 255, POLL_ROUNDS = 2000000 };

u32 drives;
static struct device devices[MAX_DRIVES];
static struct queue queues[MAX_DRIVES];
static struct { u32 kind, reserved; u64 sector; } request;
static volatile u8 status;

void drive_add(struct device *d) {
  if (drives == MAX_DRIVES) return;
  devices[drives] = *d;
  device_start(d, &queues[drives], 1);
  drives++;
}

u64 drive_bytes(u32 drive) { return device_config(&devices[drive], 0) * SECTOR_BYTES; }

u8 drive_transfer(u32 drive, bool write, void *data) {
  struct queue *q = &queues[drive];
  request.kind = write ? BLOCK_WRITE : BLOCK_READ;
  request.sector = 0;
  status = NO_ANSWER;
  q->descriptors[0] = (struct descriptor){(u64)&request, sizeof request, DESC_NEXT, 1};
  q->descriptors[1] = (struct descriptor){(u64)data, SECTOR_BYTES, (u16)(DESC_NEXT | (write ? 0 : DESC_WRITE)), 2};
  q->descriptors[2] = (struct descriptor){(u64)&status, 1, DESC_WRITE, 0};
  queue_offer(q, 0);
  queue_notify(&devices[drive], 0);
  u32 id;
  for (u32 round = 0; round < POLL_ROUNDS && !queue_take(q, &id); round++) __asm__ volatile("pause");
  device_acknowledge(&devices[drive]);
  return status;
}
