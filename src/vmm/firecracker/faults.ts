/** From Firecracker's `fault_message` to an error that says what kind it is, in which phase, and what to do. */
import { type ErrorCode, StacyError } from "../../host/error.ts";

interface Rule {
  pattern: RegExp;
  code: ErrorCode;
  message: string;
  remedy?: string;
}

const MOST_WORDS = 4_096;
const REBUILD = "the snapshot is set aside and built again by the next spawn";

/** First match wins; each pattern quotes a real answer. */
const RULES: readonly Rule[] = [
  {
    pattern: /Invalid request method and\/or path: PUT vm/i,
    code: "invalid",
    message: "the state of a machine is changed with PATCH /vm, not PUT",
  },
  {
    pattern: /not allowed after configuring boot-specific resources/i,
    code: "conflict",
    message:
      "a snapshot can only be loaded into a Firecracker that was not configured: drives, vsock and machine size come from the snapshot",
    remedy: "load it into a fresh process; even a failed configuration request counts",
  },
  {
    pattern: /not supported (after|before) starting the microVM/i,
    code: "conflict",
    message: "the machine is in the wrong state for this",
  },
  {
    pattern: /unavailable while running/i,
    code: "conflict",
    message: "a running machine cannot be saved",
    remedy: "pause it first",
  },
  {
    pattern: /Diff snapshots are not allowed on uVMs with dirty page tracking disabled/i,
    code: "not-supported",
    message: "this Firecracker writes differences only of machines that track dirty pages",
  },
  {
    pattern: /VsockUnixBackend.*Address (already )?in use/i,
    code: "conflict",
    message:
      "v.sock exists already in the machine's directory: Firecracker binds it while loading and never removes it",
    remedy: "use a fresh directory, or remove the stale v.sock",
  },
  {
    pattern: /Error manipulating the backing file: (No such file|Is a directory|Permission denied)/i,
    code: "not-found",
    message:
      "a drive of the machine cannot be opened; its path is the one saved in the snapshot, relative to the directory",
    remedy: "put rootfs.ext4 and base.img into the machine's directory before loading",
  },
  {
    pattern: /Error creating KVM object/i,
    code: "unavailable",
    message: "KVM cannot be opened",
    remedy: "add the user to the group `kvm`, or see `stacyvm doctor`",
  },
  {
    pattern: /Missing KVM capabilities/i,
    code: "unavailable",
    message: "this host's KVM lacks what Firecracker needs",
    remedy: "see `stacyvm doctor`",
  },
  {
    pattern: /No space left on device/i,
    code: "no-space",
    message: "the disk is full",
    remedy: "free disk space, or run `stacyvm snapshot gc` and `stacyvm image gc`",
  },
  {
    // From 1.16 on the decoder (bitcode) comes before checksum and version. What another release saved is told before it is loaded.
    pattern: /bitcode serialization|CRC64 validation failed|serialization\/deserialization|Snapshot size exceeds/i,
    code: "corrupt",
    message: "vmstate.bin is damaged",
    remedy: REBUILD,
  },
  {
    pattern: /smaller than CRC length|too short to contain CRC|Failed to open snapshot file/i,
    code: "corrupt",
    message: "vmstate.bin is missing or empty",
    remedy: REBUILD,
  },
  {
    pattern: /Invalid data version|Magic value does not match/i,
    code: "corrupt",
    message: "vmstate.bin was written by another version of Firecracker",
    remedy: REBUILD,
  },
  {
    pattern: /offset and length is greater then file length|largest possible file offset/i,
    code: "corrupt",
    message: "memory.bin is shorter than the machine's memory",
    remedy: REBUILD,
  },
  {
    pattern: /Failed to load guest memory/i,
    code: "corrupt",
    message: "memory.bin cannot be opened",
    remedy: REBUILD,
  },
  {
    pattern: /Failed to restore vCPUs|set all KVM MSRs|KVM vcpu cpuid/i,
    code: "corrupt",
    message: "the snapshot was made on another CPU or host kernel",
    remedy: REBUILD,
  },
  { pattern: /Load snapshot error/i, code: "corrupt", message: "the snapshot cannot be loaded", remedy: REBUILD },
  {
    pattern: /deserializing the json body|Invalid request method|Empty PUT|Empty PATCH/i,
    code: "protocol",
    message: "Firecracker does not understand the request",
  },
];

/** @param fault Firecracker's own words; they stay in the error's message and in `data.fault` */
export function faultError(whole: string, phase: string): StacyError {
  // Its own are some hundred bytes; one that was taken over says what it likes.
  const fault = whole.slice(0, MOST_WORDS);
  const rule = RULES.find(({ pattern }) => pattern.test(fault));
  return new StacyError(rule?.code ?? "internal", `${rule?.message ?? "Firecracker refused"} (Firecracker: ${fault})`, {
    phase,
    data: { fault },
    ...(rule?.remedy === undefined ? {} : { remedy: rule.remedy }),
  });
}
