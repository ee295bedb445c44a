/** A QEMU machine's states, as types: each transition hands over the next one. */
import { rename, stat } from "node:fs/promises";
import { join } from "node:path";
import { StacyError } from "../../host/error.ts";
import { isRoot } from "../../host/is-root.ts";
import type { Phases } from "../../host/phases.ts";
import type { ProcessRecord } from "../../host/process.ts";
import { allocatedBytes } from "../../host/sparse.ts";
import type { Share } from "../cgroup.ts";
import { endedFromOutside } from "../exit.ts";
import { takeBack } from "../take-back.ts";
import {
  type AgentStream,
  type BootableVmm,
  type ConnectOptions,
  type ExitReport,
  type LoadableVmm,
  type PausedMachine,
  type RunningMachine,
  type SavedState,
  SNAPSHOT_FILES,
  type SnapshotSource,
  type VmmProcess,
  type VolumeAccess,
  type VolumeFailure,
} from "../vmm.ts";
import { loadState, STREAM_FILE } from "./migration.ts";
import type { QemuProcess } from "./process.ts";

/** What the states need besides the process. */
export interface QemuContext {
  version: string;
  /** How it uses its volumes, by slot. */
  volumes: readonly VolumeAccess[];
  /** Of the host. */
  share: Share;
  /** RAM is the file `memory.bin` in the machine's directory. */
  sharedMemory: boolean;
  /** Turns the full stream in `dir` into `vmstate.bin` and `memory.bin`. */
  normalise(dir: string): Promise<void>;
}

/**
 * QEMU before 8.2 opens the file behind a private mapping for writing, though it never writes; only root may open a
 * read-only file that way.
 */
export function memoryMode(): number {
  return isRoot() ? 0o444 : 0o600;
}

abstract class State implements VmmProcess {
  protected readonly process: QemuProcess;
  protected readonly context: QemuContext;

  constructor(process: QemuProcess, context: QemuContext) {
    this.process = process;
    this.context = context;
  }

  get record(): ProcessRecord {
    return this.process.record;
  }
  get dir(): string {
    return this.process.dir;
  }
  get exited(): Promise<ExitReport> {
    return this.process.exited;
  }
  onVolumeFailure(listener: (failure: VolumeFailure) => void): void {
    this.process.volumeFailures.listen(listener);
  }
  relocate(dir: string): void {
    this.process.relocate(dir);
  }
  kill(stopped?: () => void): Promise<ExitReport> {
    return this.process.kill(stopped);
  }
  release(): Promise<void> {
    return this.process.release();
  }
}

/** QEMU boots from its command line, so a bootable one was started stopped. */
export class BootableQemu extends State implements BootableVmm {
  async boot(phases?: Phases): Promise<RunningMachine> {
    const start = (): Promise<void> => this.process.goOn();
    await (phases === undefined ? start() : phases.phase("start", start));
    this.process.confine(this.context.share);
    return new RunningQemu(this.process, this.context);
  }
}

export class LoadableQemu extends State implements LoadableVmm {
  readonly #uri: string;

  /** @param uri where the saved state is read from */
  constructor(process: QemuProcess, context: QemuContext, uri: string) {
    super(process, context);
    this.#uri = uri;
  }

  async load(snapshot: SnapshotSource, phases?: Phases): Promise<RunningMachine> {
    const load = async (): Promise<void> => {
      try {
        // Connected before the guest runs, the first bytes wait in its port when it does.
        await this.process.connectEarly();
        await loadState(await this.process.monitor(), this.#uri, snapshot.paused !== true, true);
      } catch (cause) {
        const { vmmLog } = await this.process.kill();
        if (endedFromOutside(cause)) throw cause;
        const words = vmmLog.slice(-3).join("; ");
        throw new StacyError("corrupt", `QEMU could not load the snapshot${words === "" ? "" : `: ${words}`}`, {
          cause,
          phase: "load",
        });
      }
    };
    await (phases === undefined ? load() : phases.phase("load", load));
    this.process.confine(this.context.share);
    return new RunningQemu(this.process, this.context);
  }
}

export class RunningQemu extends State implements RunningMachine {
  readonly state = "running" as const;

  get starved(): Promise<StacyError> {
    return this.process.starved;
  }

  connectAgent(options?: ConnectOptions): Promise<AgentStream> {
    return this.process.connectAgent(options);
  }

  async takeVolume(slot: number): Promise<void> {
    await this.process.takeVolume(slot, this.context.volumes[slot] ?? "read");
  }

  /** The whole RAM goes through the stream, which is written while the guest stands still. */
  async prepareSave(): Promise<void> {
    await this.process.undoing.settled();
  }

  async pause(): Promise<PausedMachine> {
    await this.process.undoing.settled();
    const qmp = await this.process.monitor();
    this.process.stands();
    try {
      // Saved by the very stop: the stream then says "running", and clones start without a further command.
      if (this.context.sharedMemory)
        await this.process.save(this.context.version, join(this.dir, SNAPSHOT_FILES.state), 0);
      else await qmp.execute("stop");
    } catch (error) {
      this.process.undoStop();
      throw error;
    }
    return new PausedQemu(this.process, this.context);
  }
}

export class PausedQemu extends State implements PausedMachine {
  readonly state = "paused" as const;

  async resume(): Promise<RunningMachine> {
    await this.process.goOn();
    return new RunningQemu(this.process, this.context);
  }

  async save(dir: string): Promise<SavedState> {
    if (this.context.sharedMemory) {
      // Its memory file *is* the snapshot's: it moves there, and nothing is copied.
      await rename(join(this.dir, SNAPSHOT_FILES.state), join(dir, SNAPSHOT_FILES.state));
      await takeBack(join(this.dir, SNAPSHOT_FILES.memory), join(dir, SNAPSHOT_FILES.memory), memoryMode());
      const stateBytes = (await stat(join(dir, SNAPSHOT_FILES.state))).size;
      const memoryBytes = await allocatedBytes(join(dir, SNAPSHOT_FILES.memory));
      return { stateBytes, memoryBytes, resumable: false, finish: async () => {} };
    }
    // A clone's RAM is private, so the stream carries it; QEMU goes on from here with `cont`.
    const stream = join(dir, STREAM_FILE);
    await this.process.save(this.context.version, stream, this.context.share.memoryMiB);
    return {
      stateBytes: (await stat(stream)).size,
      memoryBytes: await allocatedBytes(stream),
      resumable: true,
      finish: () => this.context.normalise(dir),
    };
  }
}
