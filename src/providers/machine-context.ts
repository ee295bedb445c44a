/** What the machines of one provider share. */
import type { MountedDirectory } from "../directories/directory.ts";
import type { ServingOptions } from "../directories/serving.ts";
import type { Network } from "../egress/network.ts";
import type { Authority } from "../egress/secrets/authority.ts";
import type { Launched, Launcher } from "../launcher/launcher.ts";
import type { ProviderEvent, SandboxMachine } from "./provider.ts";

export interface MachineContext {
  readonly launcher: Launcher;
  readonly network: Network;
  /** How directories of the host are served. */
  readonly directories: ServingOptions;
  /** Makes a launched machine a sandbox's, with its record on disk; if that cannot be written, it is ended. */
  own(
    launched: Launched,
    about: {
      id: string;
      allowedHosts: readonly string[];
      authority?: Authority | undefined;
      /** Mounted in its guest already: in the machine that it is a copy of. */
      directories?: readonly MountedDirectory[] | undefined;
      /** Without its first record: the next daemon is to remove it. */
      unrecorded?: boolean | undefined;
    },
  ): Promise<SandboxMachine>;
  /** Holds it until it is forgotten. */
  keep(machine: SandboxMachine): void;
  forget(machine: SandboxMachine): void;
  /**
   * Ends one that no sandbox has got, and nobody else will end. Never rejects, since why it came to nothing says more: what resists is said,
   * and tried again while this server lives.
   */
  discard(machine: SandboxMachine): Promise<void>;
  emit(event: ProviderEvent): void;
}
