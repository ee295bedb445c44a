/** A Python prompt in this terminal. The interpreter runs in a sandbox, and remembers what was defined. Ctrl-D ends it. */
import { Sandbox } from "../sdk/src/index.ts";

const { stdin, stdout } = process;
if (!stdin.isTTY) {
  console.error("this example needs a terminal");
  process.exit(2);
}
await using sandbox = await Sandbox.create({ image: "stacyvm/python" });
const python = await sandbox.spawn(["python3", "-q"], {
  pty: { rows: stdout.rows, cols: stdout.columns },
  env: { PYTHON_HISTORY: "/dev/null" },
});
console.log(`Python in ${sandbox.id}; Ctrl-D ends it and removes the sandbox.`);
stdin.setRawMode(true);
stdin.on("data", (keys) => void python.write(keys).catch(() => {}));
stdout.on("resize", () => python.resize(stdout.rows, stdout.columns));
try {
  for await (const { data } of python) stdout.write(data);
  process.exitCode = (await python.wait()).exitCode;
} finally {
  stdin.setRawMode(false).pause();
}
