/** Run by e2b-domain.test.ts with E2B_DOMAIN alone. */
import "./e2b-domain-names.ts";

const { Sandbox } = (await import(process.argv[2] ?? "e2b")) as typeof import("e2b");
const { Sandbox: Interpreter } = await import("@e2b/code-interpreter");

const sandbox = await Sandbox.create({ timeoutMs: 120_000 });
try {
  const seen: string[] = [];
  const command = "cd /tmp; echo first; until [ -e go ]; do sleep 0.1; done; python3 -m http.server 8000";
  const started = await sandbox.commands.run(command, { background: true, onStdout: (data) => void seen.push(data) });
  while (!seen.join("").includes("first")) await new Promise((wake) => setTimeout(wake, 20)); // before it has ended
  await sandbox.files.write("/tmp/page", "served by the sandbox");
  await sandbox.files.write("/tmp/go", "");
  const content = await sandbox.files.read("/tmp/page");
  const notebook = await Interpreter.connect(sandbox.sandboxId);
  const value = (await notebook.runCode("6 * 7")).text;
  await sandbox.commands.run("until curl -sf localhost:8000/page >/dev/null; do sleep 0.1; done");
  const host = sandbox.getHost(8000);
  const page = await fetch(`https://${host}/page`, {
    headers: { "e2b-traffic-access-token": sandbox.trafficAccessToken ?? "" },
  });
  const closed = await fetch(`https://${host}/page`);
  const link = await fetch(await sandbox.downloadUrl("/tmp/page"));
  await started.kill();
  const told = { content, value, host, page: await page.text(), closed: closed.status, link: await link.text() };
  process.stdout.write(`${JSON.stringify(told)}\n`);
} finally {
  await sandbox.kill();
}
