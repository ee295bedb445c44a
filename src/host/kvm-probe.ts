/**
 * Asks `/dev/kvm` itself, with a throw-away machine of one vCPU: which paravirtual backend stands behind it, by a register of that,
 * and how far a few instructions of an ordinary kernel get in ring 0. Node has no ioctl, so Python asks: some 60 ms, for hosts where
 * nothing else tells, and for `doctor`. What it showed is kept until the host boots again; that nothing ran is not, since it may have a
 * cause that passes: no memory for it just then, or another hypervisor that held the CPU.
 *
 *     <cache>/kvm.json   `Kept`
 */
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { replaceFile } from "./durable.ts";
import { defaultCacheDir } from "./paths.ts";
import { hostBootId } from "./process.ts";
import { runTool } from "./run.ts";
import { unlessShort } from "./shortage.ts";

export interface KvmProbe {
  /** Name of a paravirtual backend that showed itself. */
  backend?: string;
  /** `native`: all was run. `interpreted`: what is simple was run, what every ordinary kernel uses was not. `none`: nothing was run. */
  ring0: "native" | "interpreted" | "none";
}

interface Kept {
  boot: string;
  script: string;
  probe: KvmProbe;
}

const LIMIT_MS = 10_000;

/** MSR numbers and what reading them proves. `value`: it must read so. */
const BACKENDS: readonly { msr: number; value?: number; name: string }[] = [
  // Measured on such a host: "KVM\x11" reads "MVP".
  { msr: 0x4b564d11, value: 0x4d5650, name: "a private variant of PVM" },
  // From the headers of the public patches (arch/x86/include/uapi/asm/pvm_para.h), not tried.
  { msr: 0x4b564df0, name: "PVM" },
];
/** Nobody's. Where it can be read all unknown ones can (`kvm.ignore_msrs`), and that one can proves nothing. */
const UNKNOWN_MSR = 0x4b564dfe;
const ASKED = [...BACKENDS.map(({ msr }) => msr), UNKNOWN_MSR].map(String);

/**
 * Numbers and structures: Linux, include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h. The machine is in 64-bit mode with one
 * page of 2 MiB; its program says 1 at a port, then uses POPCNT and CMPXCHG16B, which hardware runs without asking anybody, and says 2.
 * Prints how often it was heard, then a line per MSR: its value, or `-`.
 */
const SCRIPT = `
import ctypes, fcntl, mmap, os, struct, sys
kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
vm = fcntl.ioctl(kvm, 0xAE01, 0)
try:
    fcntl.ioctl(vm, 0xAE47, 0x7FFBD000)
except OSError:
    pass
memory = mmap.mmap(-1, 0x10000)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
fcntl.ioctl(vm, 0x4020AE46, struct.pack("<IIQQQ", 0, 0, 0, 0x10000, start))
cpu = fcntl.ioctl(vm, 0xAE41, 0)
run = mmap.mmap(cpu, fcntl.ioctl(kvm, 0xAE04, 0))
for at, entry in (0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x83):
    struct.pack_into("<Q", memory, at, entry)
code = bytes.fromhex("b001e610f3480fb8c3bf00500000f0480fc70fb002e610f4")
memory[0x4000:0x4000 + len(code)] = code
def segment(selector, kind, long):
    return struct.pack("<QIH10B", 0, 0xFFFFFFFF, selector, kind, 1, 0, 1 - long, 1, long, 1, 0, 0, 0)
special = bytearray(312)
fcntl.ioctl(cpu, 0x8138AE83, special)
special[0:144] = segment(8, 11, 1) + segment(16, 3, 0) * 5
struct.pack_into("<6Q", special, 224, 0x80050033, 0, 0x1000, 0x220, 0, 0x500)
fcntl.ioctl(cpu, 0x4138AE84, bytes(special))
fcntl.ioctl(cpu, 0x4090AE82, struct.pack("<18Q", *[0] * 16, 0x4000, 2))
heard = 0
while heard < 2:
    try:
        fcntl.ioctl(cpu, 0xAE80, 0)
    except OSError:
        break
    if struct.unpack_from("<I", run, 8)[0] != 2:
        break
    heard += 1
print(heard)
for msr in sys.argv[1:]:
    asked = bytearray(struct.pack("<IIIIQ", 1, 0, int(msr), 0, 0))
    try:
        got = fcntl.ioctl(cpu, 0xC008AE88, asked)
    except OSError:
        got = 0
    print(struct.unpack("<IIIIQ", asked)[4] if got == 1 else "-")
`;

/** Whoever asks otherwise asks anew. */
const QUESTION = `${SCRIPT}${ASKED}`;

/** @returns `undefined` where Python or KVM cannot be had @throws when the host was too short of something to ask */
export async function probeKvm(cacheDir: string = defaultCacheDir()): Promise<KvmProbe | undefined> {
  const file = join(cacheDir, "kvm.json");
  const boot = await hostBootId();
  const kept = await readFile(file, "utf8").then(
    (text) => JSON.parse(text) as Kept,
    () => undefined,
  );
  if (kept?.boot === boot && kept.script === QUESTION && isLasting(kept.probe)) return kept.probe;
  const probe = await ask();
  // Of no weight: who cannot keep it asks again.
  if (probe !== undefined && isLasting(probe)) {
    const next: Kept = { boot, script: QUESTION, probe };
    await mkdir(cacheDir, { recursive: true })
      .then(() => replaceFile(file, JSON.stringify(next)))
      .catch(() => {});
  }
  return probe;
}

function isLasting({ backend, ring0 }: KvmProbe): boolean {
  return backend !== undefined || ring0 !== "none";
}

async function ask(): Promise<KvmProbe | undefined> {
  const text = await runTool("python3", ["-c", SCRIPT, ...ASKED], { timeoutMs: LIMIT_MS }).then(
    (output) => output.toString("utf8"),
    unlessShort(undefined),
  );
  return text === undefined ? undefined : judgeAnswer(text);
}

/** @param text what the script printed */
export function judgeAnswer(text: string): KvmProbe {
  const [heard, ...values] = text.trim().split("\n");
  const readsAny = (values[BACKENDS.length] ?? "-") !== "-";
  const backend = BACKENDS.find(({ value }, i) => {
    const read = values[i] ?? "-";
    return read !== "-" && (value === undefined ? !readsAny : Number(read) === value);
  })?.name;
  const ring0 = heard === "2" ? "native" : heard === "1" ? "interpreted" : "none";
  return { ring0, ...(backend === undefined ? {} : { backend }) };
}
