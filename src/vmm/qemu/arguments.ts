/**
 * QEMU's command line. A golden machine and its clones get the same devices in the same order: a saved state fits nothing
 * else. All paths are relative to the machine's directory, except the snapshot's memory, which all clones map.
 */
import { FILES, type MachineConfig, volumeFile } from "../vmm.ts";

/** What QEMU makes itself: all of the machine's directory that it may write to, beside files that are there before it. */
export const RUN_DIR = "run";
export const QMP_SOCKET = `${RUN_DIR}/qmp.sock`;
export const AGENT_SOCKET = `${RUN_DIR}/agent.sock`;
/** The port's name inside the guest: /sys/class/virtio-ports/NAME/name. */
const AGENT_PORT_NAME = "agent";

/** QEMU has no use for a KVM that interprets a guest's kernel. */
export type Accelerator = "kvm" | "tcg";

/**
 * `-cpu max` hangs under emulation here, and a guest without cx16 avoids a slow helper (qemu.md). Without arat the kernel
 * takes the processor's timer for one that stops in sleep: every `sleep` then lasts to the next tick, 4 ms, and the tick never stops.
 * OpenBLAS takes an AMD processor without AVX for an Opteron, whose routines use 3DNow!: without it each program that inverts a matrix
 * with numpy, matplotlib's figures among them, ends with an illegal instruction.
 */
export function cpuModel(accelerator: Accelerator): string {
  return accelerator === "kvm" ? "host" : "qemu64,-cx16,+arat,+3dnow,+3dnowext";
}

export const MACHINE_TYPE =
  "microvm,x-option-roms=off,acpi=on,pit=on,pic=on,rtc=on,isa-serial=on,auto-kernel-cmdline=on,memory-backend=ram";

/**
 * `psi` and the security modules that need a policy are off: nothing in a guest loads one, and under emulation each of their
 * functions is translated anew after a restore. Landlock and Yama work without one.
 */
const CMDLINE = "console=ttyS0 quiet panic=-1 reboot=t random.trust_cpu=off tsc=reliable psi=0 lsm=landlock,yama";

/**
 * What a guest has no use for it tells of in pieces of 128 KiB and more (of 2 MiB and more by itself), and a processor's list of free pages,
 * of which it tells nothing, holds a 256th of the memory at most: with huge pages the kernel lets it grow to 54 MiB.
 */
const GIVES_BACK = "page_reporting.page_reporting_order=5 sysctl.vm.percpu_pagelist_high_fraction=256";

/**
 * What an emulated processor runs slowly and needs not: detours around the speculation of a real one, the string instructions
 * (feature 112, `rep_good`: emulated one step at a time, plain moves are faster) and pages zeroed for the kernel's own use.
 */
const EMULATED = "mitigations=off clearcpuid=112 init_on_alloc=0";

export function kernelCommandLine(accelerator: Accelerator): string {
  return [CMDLINE, GIVES_BACK, ...(accelerator === "kvm" ? [] : [EMULATED])].join(" ");
}

export interface MemorySource {
  /** Relative or absolute path of the file that is the guest's RAM, or none for anonymous memory. */
  path: string | undefined;
  shared: boolean;
}

/**
 * System calls that QEMU gives up for good before it meets a guest: those of old, new rights, other programs, and priorities. States are
 * loaded by an open descriptor and saved to a socket or a file, so it has to start nothing.
 */
const SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/** `load` waits for `migrate-incoming`: the capability that it needs exists on the monitor only. */
export type Start = "boot" | "load";

/**
 * @param tsc the host's TSC frequency in kHz, where a guest should be told it
 * @param reports its guest says which memory it has no use for, and QEMU gives that back
 */
export function qemuArguments(
  config: MachineConfig,
  accelerator: Accelerator,
  memory: MemorySource,
  start: Start,
  tsc: number | undefined,
  reports: boolean,
): string[] {
  const size = `${config.memoryMiB}M`;
  const backend =
    memory.path === undefined
      ? `memory-backend-ram,id=ram,size=${size}`
      : `memory-backend-file,id=ram,size=${size},mem-path=${escapeComma(memory.path)},share=${memory.shared ? "on" : "off"},prealloc=off`;
  return [
    ...["-accel", accelerator, "-cpu", cpuModel(accelerator), "-M", MACHINE_TYPE, "-m", String(config.memoryMiB)],
    ...["-smp", String(config.vcpus), "-object", backend],
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-bios", "qboot.rom"],
    ...["-sandbox", SANDBOX],
    // Appended to, so that it can be cut from outside (vmm/console-file.ts).
    ...["-chardev", `file,id=con,path=${FILES.console},append=on`, "-serial", "chardev:con"],
    ...["-chardev", `socket,id=qmp,path=${QMP_SOCKET},server=on,wait=off`, "-mon", "chardev=qmp,mode=control"],
    ...["-device", "virtio-serial-device,max_ports=8"],
    ...["-chardev", `socket,id=ag,path=${AGENT_SOCKET},server=on,wait=off`],
    ...["-device", `virtserialport,chardev=ag,name=${AGENT_PORT_NAME}`],
    ...disk("base", FILES.base, true),
    ...disk("rw", FILES.rootfs, false),
    ...(config.volumes ?? []).flatMap((access, slot) => disk(`volume-${slot}`, volumeFile(slot), access === "read")),
    // Behind all others: their places stay what they are without it.
    ...(reports ? ["-device", "virtio-balloon-device,free-page-reporting=on"] : []),
    ...startArguments(config, accelerator, start, tsc),
  ];
}

function disk(name: string, file: string, readOnly: boolean): string[] {
  const node = readOnly
    ? `driver=raw,node-name=${name},read-only=on,file.driver=file,file.filename=${file},file.read-only=on`
    : `driver=raw,node-name=${name},discard=unmap,file.driver=file,file.filename=${file}`;
  return ["-blockdev", node, "-device", `virtio-blk-device,drive=${name},serial=${name}`];
}

function startArguments(
  config: MachineConfig,
  accelerator: Accelerator,
  start: Start,
  tsc: number | undefined,
): string[] {
  if (start === "load") return ["-incoming", "defer"];
  const append = [
    kernelCommandLine(accelerator),
    ...(tsc === undefined ? [] : [`tsc_early_khz=${tsc}`]),
    config.cmdline ?? "",
  ]
    .join(" ")
    .trim();
  const initrd = config.initramfs === undefined ? [] : ["-initrd", config.initramfs];
  return ["-S", "-kernel", config.kernel, ...initrd, "-append", append];
}

/** A comma in an option's value is written twice. */
function escapeComma(value: string): string {
  return value.replaceAll(",", ",,");
}
