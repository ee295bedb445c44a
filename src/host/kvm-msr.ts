/**
 * Which paravirtual backend stands behind `/dev/kvm`, by the registers of a throw-away vCPU. Node has no ioctl, so Python asks:
 * some 50 ms, for `doctor` and for hosts where nothing else tells.
 */
import { runTool } from "./run.ts";

const LIMIT_MS = 10_000;

/** MSR numbers and what reading them proves. `value`: it must read so. */
const BACKENDS: readonly { msr: number; value?: number; name: string }[] = [
  // Measured on such a host: "KVM\x11" reads "MVP".
  { msr: 0x4b564d11, value: 0x4d5650, name: "a private variant of PVM" },
  // From the headers of the public patches (arch/x86/include/uapi/asm/pvm_para.h), not tried.
  { msr: 0x4b564df0, name: "PVM" },
];

/** ioctl numbers: Linux, include/uapi/linux/kvm.h. Prints one line per MSR: its value, or `-`. */
const SCRIPT = `
import fcntl, os, struct, sys
kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
vm = fcntl.ioctl(kvm, 0xAE01, 0)
cpu = fcntl.ioctl(vm, 0xAE41, 0)
for msr in sys.argv[1:]:
    asked = bytearray(struct.pack("<IIIIQ", 1, 0, int(msr), 0, 0))
    try:
        got = fcntl.ioctl(cpu, 0xC008AE88, asked)
    except OSError:
        got = 0
    print(struct.unpack("<IIIIQ", asked)[4] if got == 1 else "-")
`;

/** Its name, or `undefined` for another backend, or where Python or KVM cannot be had. */
export async function pvmBackend(): Promise<string | undefined> {
  const args = ["-c", SCRIPT, ...BACKENDS.map(({ msr }) => String(msr))];
  const text = await runTool("python3", args, { timeoutMs: LIMIT_MS }).then(
    (output) => output.toString("utf8"),
    () => "",
  );
  const values = text.trim().split("\n");
  return BACKENDS.find(({ value }, i) => {
    const read = values[i] ?? "-";
    return read !== "-" && read !== "" && (value === undefined || Number(read) === value);
  })?.name;
}
