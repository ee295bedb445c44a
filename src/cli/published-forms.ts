/**
 * Commands of the published StacyVM and of Docker, which people and scripts go on typing: they are in no help, do what ours do,
 * and say on standard error what they are called here. What would do something else than its name promises is not here: habits.ts
 * says what to type.
 */
import { type Command, Option } from "commander";
import { doctorCommand } from "./commands/doctor.ts";
import { imageLsCommand, imageRmCommand, pullCommand } from "./commands/image.ts";
import { lsCommand } from "./commands/ls.ts";
import { configForm, supportForm } from "./commands/published.ts";
import { shellCommand } from "./commands/shell.ts";
import { spawnCommand } from "./commands/spawn.ts";
import { resumeCommand } from "./commands/state-changes.ts";
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
    renamed(imageLsCommand(), "images", "image ls"),
    renamed(pullCommand(), "pull", "image pull"),
    renamed(imageRmCommand(), "rmi", "image rm"),
    renamed(spawnCommand(), "create", "spawn"),
    renamed(shellCommand(), "attach", "shell"),
    renamed(shellCommand(), "ssh", "shell"),
    renamed(topCommand(), "stats", "top"),
    renamed(doctorCommand(), "info", "doctor"),
    renamed(resumeCommand(), "unpause", "resume"),
    configForm(),
    supportForm(),
  ];
}

function renamed(command: Command, theirs: string, ours: string): Command {
  return command.name(theirs).hook("preAction", () => noteForm(theirs, ours));
}
