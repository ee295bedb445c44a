/** What help shows of a command, for whatever else lists commands. */
import type { Command, Option } from "commander";

export function visibleCommands(command: Command): readonly Command[] {
  const shown = new Set(command.createHelp().visibleCommands(command));
  return command.commands.filter((each) => shown.has(each));
}

export function visibleOptions(command: Command): readonly Option[] {
  return command.options.filter(({ hidden }) => !hidden);
}
