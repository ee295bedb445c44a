/* virtio-mmio, version 2 (virtio 1.2, section 4.2): devices and split queues. */
#include "guest.h"

enum {
  DEVICE_FEATURES_SELECT = 0x14, DRIVER_FEATURES = 0x20, DRIVER_FEATURES_SELECT = 0x24, QUEUE_SELECT = 0x30,
  QUEUE_NUMBER = 0x38, QUEUE_READY = 0x44, QUEUE_NOTIFY = 0x50, INTERRUPT_STATUS = 0x60, INTERRUPT_ACK = 0x64,
  STATUS = 0x70, QUEUE_DESCRIPTORS = 0x80, QUEUE_AVAILABLE = 0x90, QUEUE_USED = 0xa0, CONFIG = 0x100
};
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };

static void set(struct device *d, u32 offset, u32 value) { d->registers[offset / 4] = value; }

static void set_address(struct device *d, u32 offset, const void *address) {
  set(d, offset, (u32)(u64)address);
  set(d, offset + 4, (u32)((u64)address >> 32));
}

/* Accepts VIRTIO_F_VERSION_1 and no other feature. */
void device_start(struct device *d, struct queue *queues, u32 count) {
  set(d, STATUS, 0);
  set(d, STATUS, ACKNOWLEDGE); /* Firecracker takes one new bit at a time */
  set(d, STATUS, ACKNOWLEDGE | DRIVER);
  set(d, DRIVER_FEATURES_SELECT, 0);
  set(d, DRIVER_FEATURES, 0);
  set(d, DRIVER_FEATURES_SELECT, 1);
  set(d, DRIVER_FEATURES, 1);
  set(d, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
  for (u32 i = 0; i < count; i++) {
    set(d, QUEUE_SELECT, i);
    set(d, QUEUE_NUMBER, QUEUE_SIZE);
    set_address(d, QUEUE_DESCRIPTORS, queues[i].descriptors);
    set_address(d, QUEUE_AVAILABLE, &queues[i].available);
    set_address(d, QUEUE_USED, &queues[i].used);
    set(d, QUEUE_READY, 1);
  }
  set(d, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

void queue_offer(struct queue *q, u16 head) {
  q->available.ring[q->available.index % QUEUE_SIZE] = head;
  BARRIER();
  q->available.index++;
  BARRIER();
}

void queue_notify(struct device *d, u32 queue) {
  BARRIER();
  set(d, QUEUE_NOTIFY, queue);
}

bool queue_take(struct queue *q, u32 *id) {
  if (q->taken == q->used.index) return false;
  BARRIER();
  *id = q->used.ring[q->taken++ % QUEUE_SIZE].id;
  return true;
}

u64 device_config(struct device *d, u32 offset) {
  return d->registers[(CONFIG + offset) / 4] | (u64)d->registers[(CONFIG + offset) / 4 + 1] << 32;
}

void device_acknowledge(struct device *d) {
  u32 status = d->registers[INTERRUPT_STATUS / 4];
  if (status) set(d, INTERRUPT_ACK, status);
}
