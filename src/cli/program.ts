/** All commands as one program. One file per command; this one only puts them together. */
import { Command } from "commander";
import { backgroundCommand } from "./commands/background.ts";
import { benchCommand } from "./commands/bench.ts";
import { checkpointCommand } from "./commands/checkpoint.ts";
import { completionCommand } from "./commands/completion.ts";
import { cpCommand } from "./commands/cp.ts";
import { doctorCommand } from "./commands/doctor.ts";
import { eventsCommand } from "./commands/events.ts";
import { execCommand } from "./commands/exec.ts";
import { filesCommand } from "./commands/files.ts";
import { forkCommand } from "./commands/fork.ts";
import { forwardCommand } from "./commands/forward.ts";
import { imageCommand } from "./commands/image.ts";
import { inspectCommand } from "./commands/inspect.ts";
import { keyCommand } from "./commands/key.ts";
import { killCommand } from "./commands/kill.ts";
import { logsCommand } from "./commands/logs.ts";
import { lsCommand } from "./commands/ls.ts";
import { mcpCommand } from "./commands/mcp.ts";
import { migrateCommand } from "./commands/migrate.ts";
import { moveCommand } from "./commands/move.ts";
import { networkCommand } from "./commands/network.ts";
import { nodeCommand } from "./commands/node.ts";
import { poolCommand } from "./commands/pool.ts";
import { psCommand } from "./commands/ps.ts";
import { databaseForm } from "./commands/published.ts";
import { rmCommand } from "./commands/rm.ts";
import { runCommand } from "./commands/run.ts";
import { secretCommand } from "./commands/secret.ts";
import { serveCommand } from "./commands/serve.ts";
import { setupCommand } from "./commands/setup.ts";
import { shellCommand } from "./commands/shell.ts";
import { snapshotCommand } from "./commands/snapshot.ts";
import { spawnCommand } from "./commands/spawn.ts";
import { extendCommand, pauseCommand, resumeCommand, suspendCommand } from "./commands/state-changes.ts";
import { syncCommand } from "./commands/sync.ts";
import { templateCommand } from "./commands/template.ts";
import { topCommand } from "./commands/top.ts";
import { urlCommand } from "./commands/url.ts";
import { versionCommand } from "./commands/version.ts";
import { volumeCommand } from "./commands/volume.ts";
import { wrappedNote } from "./help-text.ts";
import { publishedCommands } from "./published-forms.ts";
import { acceptPublishedOptions } from "./published-options.ts";
import { version } from "./version.ts";

export const EXIT_CODES = `
Exit codes: run, exec and shell end with the command's own (128 + n when
signal n ended it), 126 and 127 when it cannot be executed or found, 124 when
its time was over, 125 when StacyVM itself failed. All others: 0 done,
1 failed, 2 wrong usage, 69 no server or no machine monitor, 124 time is over,
130 interrupted.

Standard output has results only; progress, hints and errors are on standard
error.
`;

/** Last, where a terminal shows it. */
const BEGIN = `
To begin: \`stacyvm run stacyvm/busybox -- echo hello\` runs a command in a
fresh sandbox. \`stacyvm spawn --name web stacyvm/python\` starts one that stays,
and \`stacyvm shell web\` opens a shell in it.
`;

export function createProgram(): Command {
  const program = new Command("stacyvm")
    .description("microVM sandboxes that restore from a snapshot in milliseconds")
    .version(version, "-V, --version", "print the version")
    .option("--verbose", "show the causes of errors")
    .enablePositionalOptions()
    .showSuggestionAfterError()
    .addHelpText("after", wrappedNote(`${EXIT_CODES}\n${BEGIN}`));
  const groups: [string, Command[]][] = [
    ["Sandboxes:", [runCommand(), spawnCommand(), lsCommand(), inspectCommand(), rmCommand(), extendCommand()]],
    [
      "Inside one:",
      [execCommand(), shellCommand(), cpCommand(), syncCommand(), filesCommand(), psCommand(), killCommand()],
    ],
    ["", [logsCommand(), urlCommand(), forwardCommand(), networkCommand()]],
    [
      "Its state:",
      [pauseCommand(), suspendCommand(), resumeCommand(), forkCommand(), checkpointCommand(), moveCommand()],
    ],
    ["What they start from:", [imageCommand(), templateCommand(), snapshotCommand(), poolCommand()]],
    ["What stays:", [volumeCommand(), secretCommand()]],
    ["The server and this host:", [serveCommand(), topCommand(), eventsCommand(), doctorCommand(), setupCommand()]],
    [
      "",
      [
        keyCommand(),
        nodeCommand(),
        mcpCommand(),
        migrateCommand(),
        databaseForm(),
        benchCommand(),
        completionCommand(),
        versionCommand(),
      ],
    ],
  ];
  let heading = "";
  for (const [name, commands] of groups) {
    heading = name === "" ? heading : name;
    for (const command of commands) program.addCommand(command.helpGroup(heading));
  }
  program.addCommand(backgroundCommand(), { hidden: true });
  for (const command of publishedCommands()) program.addCommand(command, { hidden: true });
  acceptPublishedOptions(program);
  program.commandsGroup(heading).helpCommand(true);
  wrapHelp(program);
  return program;
}

/** Descriptions are wrapped even where long names leave them little width. */
function wrapHelp(command: Command): void {
  command.configureHelp({ minWidthToWrap: 16 });
  for (const each of command.commands) wrapHelp(each);
}
