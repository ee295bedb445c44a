import assert from "node:assert/strict";
import { test } from "node:test";
import { ConflictError, type ExitStatus, type Process, type Sandbox } from "../../../sdk/src/index.ts";
import { Call } from "./call.ts";
import { addProcessTools } from "./process-tools.ts";
import type { Session } from "./session.ts";
import type { Tool, Tools } from "./tool.ts";

/** A sandbox with one process, 7, whose output and end are the test's. */
class Machine {
  readonly id = "sb-00000000";
  readonly signals: string[] = [];
  readonly exit = Promise.withResolvers<ExitStatus>();
  running = true;
  others: Partial<Process>[] = [];
  onKill: (signal: string) => void = () => {};

  readonly processes = async () => [
    { id: "7", running: this.running, detached: true, command: "serve" },
    ...this.others,
  ];
  readonly exec = async () => ({ stdout: "" });
  readonly start = async () => "7";
  readonly kill = async (_process: string, signal: string) => {
    this.signals.push(signal);
    this.onKill(signal);
  };
  readonly attach = async () => {
    const { exit } = this;
    let left = false;
    const leave = Promise.withResolvers<void>();
    return {
      exited: exit.promise,
      async *[Symbol.asyncIterator]() {
        await Promise.race([exit.promise, leave.promise]);
        if (!left) yield { stream: "stdout", data: new TextEncoder().encode("last words") };
        if (left) throw new Error("detached");
      },
      detach: () => {
        left = true;
        leave.resolve();
      },
      [Symbol.asyncDispose]: async () => {},
    };
  };

  end(): void {
    this.running = false;
    this.exit.resolve({ exitCode: 3, reason: "exited" });
  }

  async call(name: string, input: object): Promise<unknown> {
    const all: Tool<never>[] = [];
    const tools = { add: (tool: Tool<never>) => void all.push(tool) };
    const use: Session["use"] = (_id, _call, work) => work(this as unknown as Sandbox);
    addProcessTools(tools as unknown as Tools, { use } as Session);
    using call = new Call({ mcpReq: { signal: new AbortController().signal } } as never);
    return await all.find((tool) => tool.name === name)?.work(input as never, call);
  }
}

test("of a process that has ended its end is told, however late it comes", async () => {
  const machine = new Machine();
  machine.running = false;
  const read = machine.call("read_process", { process: "7", wait_seconds: 0 });
  setTimeout(() => machine.end(), 600); // longer than what is there already takes at most
  assert.match(String(await read), /^process 7 has ended: exit code 3 .*stdout:\nlast words$/s);
});

test("a process that goes on is said to run", async () => {
  const read = new Machine().call("read_process", { process: "7", wait_seconds: 0 });
  assert.match(String(await read), /^process 7 runs /);
});

test("a process that ends while it is stopped has ended: no second signal, and no failure", async (t) => {
  await t.test("at once", async () => {
    const machine = new Machine();
    machine.onKill = () => machine.end();
    assert.match(String(await machine.call("stop_process", { process: "7" })), /^process 7 has ended/);
    assert.deepEqual(machine.signals, ["SIGTERM"]);
  });
  await t.test("before the signal", async () => {
    const machine = new Machine();
    machine.onKill = () => {
      machine.end();
      throw new ConflictError("CONFLICT", "signal: no such process");
    };
    assert.match(String(await machine.call("stop_process", { process: "7" })), /^process 7 has ended/);
    assert.deepEqual(machine.signals, ["SIGTERM"]);
  });
  await t.test("one that stays is killed", async () => {
    const machine = new Machine();
    machine.onKill = (signal) => signal === "SIGKILL" && machine.end();
    assert.match(String(await machine.call("stop_process", { process: "7" })), /^process 7 has ended/);
    assert.deepEqual(machine.signals, ["SIGTERM", "SIGKILL"]);
  });
  await t.test("a signal that is refused while it runs is a failure", async () => {
    const machine = new Machine();
    machine.onKill = () => {
      throw new ConflictError("CONFLICT", "not permitted");
    };
    await assert.rejects(machine.call("stop_process", { process: "7" }), /not permitted/);
  });
});

test("commands that were waited for are listed while they run, and not among what there is", async () => {
  const machine = new Machine();
  machine.others = [
    { id: "8", running: false, detached: false, exitCode: 0, command: "ls -l /proc/1/fd" },
    { id: "9", running: true, detached: false, command: "make" },
    { id: "10", running: false, detached: true, exitCode: 2, command: "watch" },
    { id: "11", running: false, exitCode: 0, command: "of an older agent" },
  ];
  assert.equal(
    await machine.call("list_processes", {}),
    "7  runs  serve\n9  runs  make\n10  exit code 2  watch\n11  exit code 0  of an older agent\nopen ports: none",
  );
  await assert.rejects(machine.call("read_process", { process: "5", wait_seconds: 0 }), /it has 7, 9, 10, 11\n/);
});
