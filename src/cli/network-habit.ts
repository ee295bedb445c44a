/** `--network none`, as people type it with Docker: it is how a sandbox begins anyway. Any other network is a list of hosts here. */
import { InvalidArgumentError, Option } from "commander";

export function networkHabit(): Option {
  return new Option("--network <name>", "none: as it is by itself")
    .argParser((name: string) => {
      if (name === "none") return name;
      throw new InvalidArgumentError("a sandbox has none by itself; --allow HOST names a host that it may connect to.");
    })
    .hideHelp();
}
