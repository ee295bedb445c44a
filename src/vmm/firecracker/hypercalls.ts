import type { MachineConfig } from "../vmm.ts";

/**
 * What a guest must not be offered where KVM interprets its kernel. A hypercall is not interpreted: KVM means to replace the
 * instruction by its own kind of it, in kernel text that may not be written, and the guest dies of that page fault.
 * Each of these is a bit of EAX in the leaf of KVM's features (Linux, Documentation/virt/kvm/x86/cpuid.rst):
 *
 *     7  PV_UNHALT      a waiting lock wakes a processor by a hypercall
 *     9  PV_TLB_FLUSH   the backend flushes for a processor that does not run; whether this one does is not known
 *    11  PV_SEND_IPI    interrupts to several processors by a hypercall
 *    13  PV_SCHED_YIELD a hypercall after an interrupt to a processor that does not run
 *
 * All are of use between processors only, so a guest of one is told nothing: it would start some two times, and restore four times, as slowly
 * (docs/measurements.md).
 */
const FEATURES_LEAF = "0x40000001";
/** From bit 13 down; `x`, and all above, stays as it is. */
const WITHOUT_HYPERCALLS = "0b0x0x0x0xxxxxxx";

/** @param interpreted KVM interprets the guest's kernel */
export function mustNotCall({ vcpus, initramfs }: MachineConfig, interpreted: boolean): boolean {
  return interpreted && vcpus > 1 && initramfs !== undefined;
}

/** Body of `PUT /cpu-config`. */
export const NO_HYPERCALLS = {
  cpuid_modifiers: [
    {
      ...{ leaf: FEATURES_LEAF, subleaf: "0x0", flags: 0 },
      modifiers: [{ register: "eax", bitmap: WITHOUT_HYPERCALLS }],
    },
  ],
};
