/**
 * Commands of the published StacyVM, which people and scripts go on typing: they are in no help, do what ours do, and say on
 * standard error what they are called here.
 */
import { type Command, Option } from "commander";
import { pullCommand } from "./commands/image.ts";
import { lsCommand } from "./commands/ls.ts";
import { configForm, databaseForm, supportForm } from "./commands/published.ts";
import { topCommand } from "./commands/top.ts";
import { noteForm } from "./published-options.ts";

export function publishedCommands(): Command[] {
  return [
    renamed(lsCommand(), "list", "ls"),
    renamed(topCommand(), "tui", "top"),
    renamed(topCommand(), "dashboard", "top"),
    // Theirs makes a root disk of a Docker image; a pull does. The writable layer's size is a sandbox's own here.
    renamed(pullCommand(), "build-image", "image pull").addOption(
      new Option("--disk-size <mib>", "see spawn --disk").hideHelp(),
    ),
    configForm(),
    databaseForm(),
    supportForm(),
  ];
}

function renamed(command: Command, theirs: string, ours: string): Command {
  return command.name(theirs).hook("preAction", () => noteForm(theirs, ours));
}
