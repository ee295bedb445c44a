/*
 * virtio-vsock with one connection: the newest wins, older ones are reset.
 *
 * In: bytes are consumed as they arrive, so the window that we offer is always open. Firecracker never sends
 * CREDIT_REQUEST, so CREDIT_UPDATE goes out on our own account; without it the host stalls after one window.
 * Out: a ring of bytes. Descriptors point into it, so nothing is copied again; bytes are freed when their packet is used.
 */
#include "guest.h"
#include "protocol.h"

enum { RX, TX, EVENT, QUEUES };
enum { OP_REQUEST = 1, OP_RESPONSE, OP_RST, OP_SHUTDOWN, OP_RW, OP_CREDIT_UPDATE, OP_CREDIT_REQUEST };
enum { TYPE_STREAM = 1, WINDOW = 262144, UPDATE_AFTER = 32768 };
enum { RX_BUFFERS = 32, RX_BYTES = 4096, EVENT_BUFFERS = 4 };
enum { RING = 1 << 19, TX_SLOTS = 16, PACKET_LIMIT = 32768 };

struct header {
  u64 source_cid, destination_cid;
  u32 source_port, destination_port, length;
  u16 type, op;
  u32 flags, buffer, forwarded;
} __attribute__((packed));

static struct device device;
static struct queue queues[QUEUES];
static u8 rx[RX_BUFFERS][RX_BYTES] __attribute__((aligned(4096)));
static u8 events[EVENT_BUFFERS][8];

static struct header headers[TX_SLOTS];
static u32 slot_bytes[TX_SLOTS];
static u32 packets_sent, packets_done;
static bool tx_dirty;

static u8 ring[RING] __attribute__((aligned(4096)));
static u32 written, handed, freed; /* freed <= handed <= written, all counted without wrapping at RING */

static struct {
  bool open, asked;
  u64 peer_cid, own_cid;
  u32 peer_port;
  u32 received, told;           /* bytes from the peer, and how many of them it knows to be consumed */
  u32 sent, peer_buffer, peer_forwarded;
} connection;

static void collect_sent(void) {
  u32 id;
  while (queue_take(&queues[TX], &id)) freed += slot_bytes[packets_done++ % TX_SLOTS];
}

/* Takes the next slot; a full queue empties without us, since the device works in another thread. */
static struct header *next_packet(u32 ring_bytes) {
  while (packets_sent - packets_done == TX_SLOTS) {
    queue_notify(&device, TX);
    __asm__ volatile("pause");
    collect_sent();
  }
  slot_bytes[packets_sent % TX_SLOTS] = ring_bytes;
  return &headers[packets_sent % TX_SLOTS];
}

static void post_packet(u32 from, u32 n) {
  u32 slot = packets_sent++ % TX_SLOTS;
  u16 head = (u16)(slot * 3);
  struct descriptor *d = &queues[TX].descriptors[head];
  u32 offset = from % RING, first = n < RING - offset ? n : RING - offset;
  d[0] = (struct descriptor){(u64)&headers[slot], sizeof headers[slot], n ? DESC_NEXT : 0, (u16)(head + 1)};
  d[1] = (struct descriptor){(u64)ring + offset, first, n > first ? DESC_NEXT : 0, (u16)(head + 2)};
  d[2] = (struct descriptor){(u64)ring, n - first, 0, 0};
  queue_offer(&queues[TX], head);
  tx_dirty = true;
}

static void reset_peer(const struct header *in) {
  struct header *h = next_packet(0);
  *h = (struct header){in->destination_cid, in->source_cid, in->destination_port, in->source_port, 0,
                       TYPE_STREAM, OP_RST, 0, 0, 0};
  post_packet(0, 0);
}

static void connection_packet(u16 op, u32 from, u32 n) {
  struct header *h = next_packet(n);
  *h = (struct header){connection.own_cid, connection.peer_cid, AGENT_PORT, connection.peer_port, n,
                       TYPE_STREAM, op, 0, WINDOW, connection.received};
  connection.told = connection.received;
  post_packet(from, n);
}

bool send_bytes(const void *bytes, u32 n) {
  if (n > RING - (written - freed)) return false;
  u32 offset = written % RING, first = n < RING - offset ? n : RING - offset;
  copy(ring + offset, bytes, first);
  copy(ring, (const u8 *)bytes + first, n - first);
  written += n;
  return true;
}

/* Room for so many bytes in one piece, which count as sent; 0 where the ring ends before. The caller has looked for room. */
u8 *send_place(u32 n) {
  u32 offset = written % RING;
  if (n > RING - offset) return 0;
  written += n;
  return ring + offset;
}

u32 send_room(void) { return RING - (written - freed); }

/* What the device already has goes out; only then may its place be used again. */
void forget_unsent(void) { written = handed; }

static void drop_connection(void) {
  connection.open = false;
  forget_unsent();
  session_lost();
}

void hang_up(void) {
  if (!connection.open) return;
  connection_packet(OP_RST, 0, 0);
  drop_connection();
}

static void flush(void) {
  while (connection.open && handed != written) {
    u32 n = written - handed;
    u32 credit = connection.peer_buffer - (connection.sent - connection.peer_forwarded);
    if (n > credit) n = credit;
    if (n > PACKET_LIMIT) n = PACKET_LIMIT;
    if (n == 0) {
      if (!connection.asked) connection_packet(OP_CREDIT_REQUEST, 0, 0);
      connection.asked = true;
      return;
    }
    connection_packet(OP_RW, handed, n);
    handed += n;
    connection.sent += n;
  }
}

static void accept(const struct header *in) {
  if (in->destination_port != AGENT_PORT) {
    reset_peer(in);
    return;
  }
  hang_up();
  connection.open = true;
  connection.asked = false;
  connection.peer_cid = in->source_cid;
  connection.own_cid = in->destination_cid;
  connection.peer_port = in->source_port;
  connection.received = connection.told = connection.sent = 0;
  connection.peer_buffer = in->buffer;
  connection.peer_forwarded = in->forwarded;
  frames_reset();
  connection_packet(OP_RESPONSE, 0, 0);
}

static void packet_in(const struct header *in, const u8 *data) {
  if (in->op == OP_REQUEST) {
    accept(in);
    return;
  }
  if (!connection.open || in->source_port != connection.peer_port || in->destination_port != AGENT_PORT) {
    if (in->op != OP_RST) reset_peer(in);
    return;
  }
  connection.peer_buffer = in->buffer;
  connection.peer_forwarded = in->forwarded;
  connection.asked = false;
  switch (in->op) {
    case OP_RW: {
      u32 n = in->length < RX_BYTES - sizeof *in ? in->length : RX_BYTES - (u32)sizeof *in;
      connection.received += n;
      frames_in(data, n);
      if (connection.open && connection.received - connection.told >= UPDATE_AFTER)
        connection_packet(OP_CREDIT_UPDATE, 0, 0);
      break;
    }
    case OP_SHUTDOWN:
      hang_up();
      break;
    case OP_RST:
      drop_connection();
      break;
    case OP_CREDIT_REQUEST:
      connection_packet(OP_CREDIT_UPDATE, 0, 0);
      break;
  }
}

void vsock_start(struct device *d) {
  device = *d;
  device_start(d, queues, QUEUES);
  for (u16 i = 0; i < RX_BUFFERS; i++) {
    queues[RX].descriptors[i] = (struct descriptor){(u64)rx[i], RX_BYTES, DESC_WRITE, 0};
    queue_offer(&queues[RX], i);
  }
  for (u16 i = 0; i < EVENT_BUFFERS; i++) {
    queues[EVENT].descriptors[i] = (struct descriptor){(u64)events[i], sizeof events[i], DESC_WRITE, 0};
    queue_offer(&queues[EVENT], i);
  }
  queue_notify(&device, RX);
  queue_notify(&device, EVENT);
}

void vsock_service(void) {
  device_acknowledge(&device);
  u32 id;
  bool any = false;
  /* The only event is TRANSPORT_RESET: we were saved or restored, and no connection survived that. */
  while (queue_take(&queues[EVENT], &id)) {
    if (connection.open) drop_connection();
    queue_offer(&queues[EVENT], (u16)id);
    any = true;
  }
  if (any) queue_notify(&device, EVENT);
  any = false;
  while (queue_take(&queues[RX], &id)) {
    packet_in((struct header *)rx[id], rx[id] + sizeof(struct header));
    queue_offer(&queues[RX], (u16)id);
    any = true;
  }
  if (any) queue_notify(&device, RX);
  collect_sent();
  if (connection.open) session_pump();
  flush();
  if (tx_dirty) queue_notify(&device, TX);
  tx_dirty = false;
}
