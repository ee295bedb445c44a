/** Mastra's workspace on E2B. */
import { Workspace } from "@mastra/core/workspace";
import { E2BSandbox } from "@mastra/e2b";

const workspace = new Workspace({ sandbox: new E2BSandbox({ timeout: 60_000 }) });
await workspace.init();
try {
  const done = await workspace.sandbox.executeCommand("sh", ["-c", "echo $((6 * 7)); id -un"]);
  console.log("answer:", done.stdout.trim().split("\n").join(" "), done.exitCode);
} finally {
  await workspace.destroy();
}
