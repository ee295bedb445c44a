"""
A guest's agent, replaced by a program of that guest, as its root can do: it stops PID 1 as a debugger does, takes the channel to the host out of it
(`pidfd_getfd`), and answers in its place. Which lie it tells is in the call, a path or a command with `lie-NAME` in it; calls that name nothing get
one lie after the other. The wire format is in src/guest/protocol.ts.
"""
import ctypes
import io
import itertools
import os
import select
import struct
import tarfile
import zlib

HELLO, HELLO_ACK, OPEN, DATA, CREDIT, EVENT, END, _, CANCEL, PING, PONG, _ = range(1, 13)
EXEC, PROCESSES, READ, STAT, TUNNEL = 1, 3, 16, 18, 48
NONCE, VERSION, AGENT, GUEST, GENERATION, STATUS, MESSAGE = 4, 3, 6, 7, 8, 32, 33
PID, PROCESS_ID, EXIT_CODE, COMMAND, RUNNING, PROCESS = 56, 57, 58, 61, 63, 65
PATH, MODE, SIZE, MTIME, KIND, ENTRY, CHANGE = 80, 82, 85, 86, 87, 91, 100
NUMBERS = [*range(56, 61), 62, 82, 85, 86, 88, 89, 101, 102, *range(114, 122), 123]
NOT_FOUND, IO, CANCELLED = 1, 11, 9

MOST = 65_536
INITIAL_CREDIT = 262_144
#: What it lets wait before it makes more.
AHEAD = 262_144
#: Clears the screen, sets a title, begins a row of its own, and turns the text around.
ORDERS = b"\x1b[2J\x1b]0;owned\x07\r\n\xe2\x80\xae"


def take_channel():
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(1)
    theirs = next(fd for fd in os.listdir("/proc/1/fd") if os.readlink("/proc/1/fd/" + fd).startswith("/dev/vport"))
    fd = libc.syscall(438, pidfd, int(theirs), 0)
    seize, interrupt, all_children = 0x4206, 0x4207, 0x40000000
    assert fd >= 0 and libc.ptrace(seize, 1, 0, 0) == 0 and libc.ptrace(interrupt, 1, 0, 0) == 0
    os.waitpid(1, all_children)
    return fd


def field(tag, value):
    if isinstance(value, int):
        value = value.to_bytes(8, "little")
    return struct.pack("<BI", tag, len(value)) + value


def repeated(one):
    return one * (MOST // len(one))


NONE = b""
OK = field(STATUS, b"\0")
HUGE = b"".join(field(tag, 2**64 - 1) for tag in NUMBERS)
FILE = field(PATH, b"/it") + field(KIND, b"\1") + field(MODE, 0o644)
BEGUN = field(PROCESS_ID, 1) + field(PID, 1) + FILE + field(SIZE, 2**64 - 1)
ENTRIES = repeated(field(ENTRY, field(KIND, b"\1") + field(SIZE, b"\0")))
PATHS = repeated(field(PATH, b"x"))
CHANGED = field(CHANGE, b"\1") + field(PATH, b"x" * 60_000)
MANY_FIELDS = repeated(field(200, NONE))
NAMES = b"".join(
    field(ENTRY, field(PATH, name) + field(KIND, b"\1") + field(SIZE, b"\1") + field(MTIME, 0))
    for name in [b"/owned", b"/" + ORDERS, b"/../../x", b"", b"/\xff\xfe", b"relative", b"/" + b"n" * 4000]
)


def archive():
    """Ways out of where it is unpacked."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:

        def add(name, kind=tarfile.REGTYPE, target="", mode=0o644):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, target, mode
            content = b"owned" if kind == tarfile.REGTYPE else NONE
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

        for name, target in [("out", "../victim"), ("up", ".."), ("deep", "up/victim")]:
            add(name, tarfile.SYMTYPE, target)
            add(name + "/owned")
            add(name + "/kept")
        add("out", tarfile.DIRTYPE, mode=0o777)
        add("../victim/owned")
        add("/tmp/stacyvm-absolute")
        add("hard", tarfile.LNKTYPE, "../victim/kept")
        add("hard")
        add("device", tarfile.CHRTYPE)
        add("root", mode=0o6777)
        add(ORDERS.decode())
        add("good")
    return made.getvalue()


class Channel:
    def __init__(self, fd):
        self.fd = fd
        self.waiting = bytearray()
        self.received = bytearray()
        self.in_step = False
        self.sequence = 0

    def frame(self, kind, stream, payload=NONE, channel=0, flags=0):
        head = struct.pack("<BBBBIII", 0xA7, kind, channel, flags, stream, len(payload), self.sequence)
        self.sequence = (self.sequence + 1) & 0xFFFFFFFF
        check = zlib.crc32(head)
        return head + struct.pack("<I", check) + payload + struct.pack("<I", check ^ 0xFFFFFFFF)

    def send(self, *frame):
        self.waiting += self.frame(*frame)

    def write(self):
        try:
            del self.waiting[: os.write(self.fd, self.waiting[:MOST])]
        except BlockingIOError:
            pass

    def read(self):
        """What has come, frame by frame; out of step, from the next HELLO on."""
        try:
            self.received += os.read(self.fd, MOST)
        except BlockingIOError:
            return
        have = self.received
        while True:
            if not self.in_step:
                at = have.find(b"\xa7\x01")
                del have[: len(have) if at < 0 else at]
            if len(have) < 20:
                return
            magic, kind, _, _, stream, length, _, check = struct.unpack("<BBBBIIII", have[:20])
            if magic != 0xA7 or zlib.crc32(have[:16]) != check or length > MOST:
                self.in_step = False
                del have[:1]
                continue
            if len(have) < 24 + length:
                return
            payload = bytes(have[20 : 20 + length])
            del have[: 24 + length]
            self.in_step = True
            yield kind, stream, payload


class Call:
    """One that the host has opened. `more` makes frames while there is room, until the call is over."""

    def __init__(self, channel, stream, method, lie):
        self.channel, self.stream, self.method = channel, stream, method
        self.credit = INITIAL_CREDIT
        self.more = None
        getattr(self, lie.replace("-", "_"), self.status)()

    def send(self, kind, payload=NONE, channel=0):
        self.channel.send(kind, self.stream, payload, channel)

    def begin(self):
        if self.method in (EXEC, READ, TUNNEL):
            self.send(EVENT, BEGUN)

    def greedy(self, payload, channels=(0,)):
        """Body bytes as fast as the host permits."""
        self.begin()
        turn = itertools.cycle(channels)

        def more():
            if self.credit < len(payload):
                return False
            self.credit -= len(payload)
            self.send(DATA, payload, next(turn))
            return True

        self.more = more

    def endless(self, kind, payload, stream=None):
        def more():
            self.channel.send(kind, self.stream if stream is None else stream, payload)
            return True

        self.more = more

    # The lies.

    def taken(self):
        self.send(END, field(STATUS, bytes([NOT_FOUND])) + field(MESSAGE, b"the channel is taken"))

    def entries(self):
        self.greedy(ENTRIES)

    def paths(self):
        self.greedy(PATHS)

    def body(self):
        self.greedy(b"\0" * MOST)

    def ones(self):
        self.greedy(b"x", (1, 2))

    def changes(self):
        self.endless(EVENT, CHANGED)

    def events(self):
        self.endless(EVENT, NONE)

    def thousands(self):
        self.endless(EVENT, MANY_FIELDS)

    def commands(self):
        one = field(PROCESS, field(PID, 1) + field(RUNNING, b"\1") + field(COMMAND, ORDERS))
        self.endless(EVENT, repeated(one))

    def pings(self):
        self.endless(PING, b"x", 0)

    def credits(self):
        self.endless(CREDIT, b"\xff" * 4)

    def silence(self):
        self.begin()

    def numbers(self):
        self.begin()
        one = field(PROCESS, HUGE + field(RUNNING, b"\1"))
        if self.method == PROCESSES:
            self.send(EVENT, one)
        self.send(END, OK + field(PATH, b"/it") + field(KIND, b"\1") + HUGE)

    def words(self):
        self.send(END, field(STATUS, bytes([IO])) + field(MESSAGE, ORDERS + b"w" * 60_000))

    def names(self):
        self.begin()
        self.send(DATA, NAMES)
        self.send(END, OK)

    def tar(self):
        self.begin()
        self.send(DATA, archive())
        self.send(END, OK)

    def status(self):
        self.send(END, field(STATUS, b"\xee"))

    def nothing(self):
        self.send(END)

    def cut_fields(self):
        self.send(END, OK + b"\x50\xff\xff\xff\x7f")

    def twice(self):
        self.begin()
        self.send(END, OK)
        self.send(END, OK)

    def others(self):
        self.channel.send(DATA, self.stream + 1000, b"x")

    def kinds(self):
        self.send(200)

    def too_much(self):
        self.begin()
        for _ in range(32):
            self.send(DATA, b"x" * MOST, 1)

    def checks(self):
        frame = bytearray(self.channel.frame(END, self.stream, OK))
        frame[-1] ^= 1
        self.channel.waiting += frame

    def torn(self):
        self.channel.waiting += self.channel.frame(END, self.stream, OK)[:13]
        self.send(END, OK)

    def noise(self):
        self.channel.waiting += b"\xa7" * MOST


def lie_of(method, payload, turn):
    at = payload.find(b"lie-")
    if at < 0:
        return "taken" if method == STAT else next(turn)
    name = itertools.takewhile(lambda byte: byte == 45 or 97 <= byte <= 122, payload[at + 4 :])
    return bytes(name).decode()


def main():
    channel = Channel(take_channel())
    calls = {}
    turn = itertools.cycle(["status", "numbers", "nothing", "words", "names", "twice"])
    # Whatever the old agent had begun is over.
    channel.waiting += b"\xa7" * 64
    poll = select.poll()
    while True:
        for call in list(calls.values()):
            while call.more and len(channel.waiting) < AHEAD and call.more():
                pass
        poll.register(channel.fd, select.POLLIN | (select.POLLOUT if channel.waiting else 0))
        ready = poll.poll()[0][1]
        if ready & select.POLLOUT:
            channel.write()
        if not ready & select.POLLIN:
            continue
        for kind, stream, payload in channel.read():
            if kind == HELLO:
                calls.clear()
                channel.waiting.clear()
                channel.sequence = 0
                nonce = payload[payload.index(bytes([NONCE]) + struct.pack("<I", 16)) :][5:21]
                about = field(AGENT, ORDERS) + field(GUEST, b"linux") + field(GENERATION, 2**64 - 1)
                channel.send(HELLO_ACK, 0, field(NONCE, nonce) + OK + field(VERSION, 1) + about)
            elif kind == PING:
                channel.send(PONG, 0, payload)
            elif kind == OPEN:
                method = struct.unpack("<H", payload[:2])[0]
                calls[stream] = Call(channel, stream, method, lie_of(method, payload, turn))
            elif kind == CREDIT and stream in calls:
                calls[stream].credit += struct.unpack("<I", payload)[0]
            elif kind == CANCEL and stream in calls:
                # One that only waits confirms nothing.
                if calls.pop(stream).more:
                    channel.send(END, stream, field(STATUS, bytes([CANCELLED])))


main()
