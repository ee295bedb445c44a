/** Argument types that commands share: each parses, validates and says what is right. */
import { type Command, InvalidArgumentError, Option } from "commander";

/** `512`, `512m`, `1g`, `1.5GiB` to MiB. */
export function parseSizeMiB(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(m|mb|mib|g|gb|gib)?$/i.exec(text.trim());
  if (match?.[1] === undefined) throw new InvalidArgumentError("write a size as 512m or 1g.");
  const mib = Number(match[1]) * (/^g/i.test(match[2] ?? "m") ? 1024 : 1);
  if (!Number.isInteger(mib)) throw new InvalidArgumentError("sizes are whole MiB.");
  return mib;
}

/** As people would type it: `512m`, `1g`. */
export function sizeText(mib: number): string {
  return mib % 1024 === 0 ? `${mib / 1024}g` : `${mib}m`;
}

/** An option for a size with a default, which help shows as people would type it. */
export function sizeOption(flags: string, description: string, mib: number): Option {
  return new Option(flags, description).argParser(parseSizeMiB).default(mib, sizeText(mib));
}

/** A whole number above 0. */
export function parseCount(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < 1) throw new InvalidArgumentError("write a whole number above 0.");
  return value;
}

/** 0 to 65535. */
export function parsePort(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value > 65_535) throw new InvalidArgumentError("write a port, 0 to 65535.");
  return value;
}

/** Ports in a sandbox, 1 to 65535, each once more. */
export function collectPorts(text: string, earlier: number[] = []): number[] {
  if (text.includes(":")) {
    const [local, guest] = text.split(":").slice(-2);
    throw new InvalidArgumentError(
      `name the sandbox's port alone; \`stacyvm forward ID ${local}:${guest}\` takes a port of this host.`,
    );
  }
  const port = parsePort(text);
  if (port === 0) throw new InvalidArgumentError("write a port, 1 to 65535.");
  return [...earlier, port];
}

/** `90s`, `1h30m`, `7d`; a number alone is seconds, as with Docker; `0` for none. @returns in Go's form, which has no days */
export function parseDuration(text: string): string {
  if (/^\d+$/.test(text)) return text === "0" ? text : `${text}s`;
  if (!/^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h|d))+$/.test(text)) {
    throw new InvalidArgumentError("write a time as 90s, 30m, 1h30m or 7d.");
  }
  return text.replaceAll(/(\d+(?:\.\d+)?)d/g, (_, days) => `${Number(days) * 24}h`);
}

/** Permission bits in octal: `644`, `0755`. */
export function parseMode(text: string): number {
  if (!/^[0-7]{1,5}$/.test(text)) throw new InvalidArgumentError("write permission bits in octal, for example 644.");
  return Number.parseInt(text, 8);
}

/** Collects `-e A=1 -e B=2`. */
export function parsePair(text: string, earlier: Record<string, string> = {}): Record<string, string> {
  const at = text.indexOf("=");
  if (at <= 0) throw new InvalidArgumentError("write it as NAME=value.");
  return { ...earlier, [text.slice(0, at)]: text.slice(at + 1) };
}

/** `NAME=value`, or a name alone for the value that this command itself has, as with Docker. */
export function parseVariable(text: string, earlier: Record<string, string> = {}): Record<string, string> {
  if (text === "" || text.includes("=")) return parsePair(text, earlier);
  const value = process.env[text];
  if (value === undefined) throw new InvalidArgumentError(`${text} is not set here; write it as NAME=value.`);
  return { ...earlier, [text]: value };
}

/** Collects an option that may be given several times. */
export function collect(text: string, earlier: string[] = []): string[] {
  return [...earlier, text];
}

/** Hosts of a sandbox's network; the server says what is wrong with one. */
export function allowOption(whose = "it"): Option {
  return new Option(
    "--allow <host>",
    `a host that ${whose} may connect to, such as pkg.example, *.example.com or db.lan:5432; may be repeated`,
  ).argParser(collect);
}

/** Secrets of the owner, by name. */
export function secretOption(whose = "it"): Option {
  return new Option(
    "--secret <name>",
    `a secret that ${whose} may use (see \`stacyvm secret\`); may be repeated`,
  ).argParser(collect);
}

/**
 * The words of a command that is run in a sandbox. Ours end at its first word or at `--`; what stands before that, also behind the
 * sandbox's name, are our options, which `command.opts()` then has. @throws CommanderError for an unknown one
 */
export function commandWords(words: string[], command: Command): string[] {
  if (words[0]?.startsWith("-") !== true) return words;
  const { operands, unknown } = command.parseOptions(words);
  if (unknown[0] !== undefined)
    command.error(`error: unknown option '${unknown[0]}'`, { code: "commander.unknownOption" });
  return operands;
}
