/**
 * A program for tests (`sh -c "ulimit -n 64; exec node few-descriptors.ts PID"`): what it makes of a process that lives while no
 * descriptor is left, and of its end afterwards. Prints one JSON object; ends the process.
 */
import { closeSync, openSync } from "node:fs";
import { adoptProcess, isAlive, type ProcessRecord } from "../src/host/process.ts";

const record = JSON.parse(process.argv[2] ?? "") as ProcessRecord;
const taken: number[] = [];

function takeAll(): void {
  try {
    for (;;) taken.push(openSync("/dev/null", "r"));
  } catch {}
}

function said<T>(promise: Promise<T>): Promise<T | string> {
  return promise.catch((error: Error & { code?: string }) => `${error.code}: ${error.message}`);
}

const adopted = await adoptProcess(record, 10);
if (adopted === undefined) throw new Error("it is there");
let exited = false;
void adopted.exited.then(() => {
  exited = true;
});
takeAll();
const alive = await said(isAlive(record));
const again = await said(adoptProcess(record).then((found) => found !== undefined));
adopted.check();
await new Promise((wake) => setTimeout(wake, 100));
const gone = exited;
for (const fd of taken.splice(0)) closeSync(fd);
const aliveAfter = await isAlive(record);
process.kill(record.pid, "SIGKILL");
// Its looks alone keep nobody alive.
for (const deadline = performance.now() + 10_000; !exited && performance.now() < deadline; ) {
  await new Promise((wake) => setTimeout(wake, 10));
}
process.stdout.write(JSON.stringify({ alive, again, gone, aliveAfter, exited }));
