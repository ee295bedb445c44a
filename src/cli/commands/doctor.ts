import { Command, Option } from "commander";
import { asStacyError } from "../../host/error.ts";
import { dataPaths } from "../../host/paths.ts";
import type { Finding } from "../doctor/finding.ts";
import { note, printJson, printLine } from "../output.ts";
import { version } from "../version.ts";

/** `stacyvm doctor`: every prerequisite with its state, its meaning and its remedy. Exit 0 when a sandbox can start. */
export function doctorCommand(): Command {
  return new Command("doctor")
    .description("check what this host has and say what is missing; exit code 0 when a sandbox can start")
    .option("--fix", "do what is safe: install what is missing, remove leftovers, close the data directory to others")
    .option("--meaning", "say what each is needed for")
    .option("--json", "print JSON, errors too")
    .addOption(new Option("--production", "all is checked anyway").hideHelp())
    .action(async (options: { fix?: boolean; meaning?: boolean; json?: boolean }) => {
      let findings = await examine();
      if (options.fix === true && (await fix(findings))) findings = await examine();
      const ready = findings.every(({ state }) => state !== "missing");
      process.exitCode = ready ? 0 : 1;
      if (options.json === true) {
        const fixable = findings.map(({ fix, ...rest }) => ({ ...rest, fixable: fix !== undefined }));
        printJson({ ready, findings: fixable });
        return;
      }
      const marks = { ok: "✓", note: "•", missing: "✗" };
      for (const { name, state, detail, meaning, remedy } of findings) {
        printLine(`${marks[state]} ${name.padEnd(15)} ${detail}`);
        if (options.meaning === true || state === "missing") printLine(`  ${"".padEnd(15)} ${meaning}`);
        if (remedy !== undefined) printLine(`  ${"".padEnd(15)} remedy: ${remedy}`);
      }
      printLine("");
      printLine(ready ? "A sandbox can start." : "A sandbox cannot start yet.");
      const fixable = findings.filter((finding) => finding.fix !== undefined).length;
      if (fixable > 0 && options.fix !== true)
        note(`\`stacyvm doctor --fix\` can do something about ${fixable} of these`);
    });
}

/** @returns whether anything was done */
async function fix(findings: Finding[]): Promise<boolean> {
  let done = false;
  for (const { name, fix } of findings) {
    if (fix === undefined) continue;
    done = true;
    try {
      note(`${name}: ${await fix()}`);
    } catch (error) {
      note(`${name}: ${asStacyError(error).message}`);
    }
  }
  return done;
}

export async function examine(paths = dataPaths()): Promise<Finding[]> {
  const [{ checkMonitors }, { checkGuest }, { checkHost }, { checkData, checkTrust }, { checkFleet }] =
    await Promise.all([
      import("../doctor/monitors.ts"),
      import("../doctor/guest.ts"),
      import("../doctor/host.ts"),
      import("../doctor/data.ts"),
      import("../doctor/fleet.ts"),
    ]);
  const program: Finding = {
    name: "StacyVM",
    state: "ok",
    detail: `${version}, Node ${process.versions.node}`,
    meaning: "this program",
  };
  // What lies in another user's is not even looked at: some of it would be run.
  const refused = await checkTrust(paths);
  if (refused !== undefined) return [program, refused, ...(await checkHost())];
  return [
    program,
    ...(await checkMonitors(paths)),
    ...(await checkGuest(paths)),
    ...(await checkData(paths)),
    ...(await checkHost()),
    ...(await checkFleet(paths.root)),
  ];
}
