/** Completion scripts from the commands themselves. Sandbox ids are asked for while typing; all else is in the script. */
import type { Command } from "commander";
import { visibleCommands, visibleOptions } from "./visible.ts";

export const SHELLS = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof SHELLS)[number];

interface Node {
  /** Words after the program's name. */
  path: string[];
  commands: { name: string; description: string }[];
  options: { flags: string[]; value: boolean; description: string }[];
  /** Its first argument is a sandbox. */
  sandbox: boolean;
}

export function completionScript(root: Command, shell: Shell | "json"): string {
  const nodes = [...walk(root, [])];
  if (shell === "json") return `${JSON.stringify(nodes, null, 2)}\n`;
  return { bash, zsh, fish }[shell](nodes);
}

function* walk(command: Command, path: string[]): Generator<Node> {
  const commands = visibleCommands(command);
  yield {
    path,
    commands: commands.flatMap((each) => {
      const names = [each.name(), ...each.aliases()];
      return names.map((name) => ({ name, description: each.description() }));
    }),
    options: visibleOptions(command).map((option) => ({
      flags: [option.short, option.long].filter((flag) => flag !== undefined && flag !== null),
      value: option.required || option.optional,
      description: option.description,
    })),
    sandbox: command.registeredArguments[0]?.name() === "id" && !path.includes("checkpoint"),
  };
  for (const each of commands) yield* walk(each, [...path, each.name()]);
}

function bash(nodes: Node[]): string {
  const cases = nodes.map(({ path, commands, options, sandbox }) => {
    const words = [...commands.map(({ name }) => name), ...options.flatMap(({ flags }) => flags), "--help"];
    const ids = sandbox ? ' ids="$(stacyvm ls -q 2>/dev/null)"' : "";
    return `    ${quote(path.join(" "))}) words=${quote(words.join(" "))}${ids} ;;`;
  });
  return `# bash completion for stacyvm: source <(stacyvm completion bash)
_stacyvm() {
  local word="\${COMP_WORDS[COMP_CWORD]}" path="" next words="" ids="" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    next="\${path:+$path }\${COMP_WORDS[i]}"
    case "$next" in
      ${pattern(nodes)}) path="$next" ;;
    esac
  done
  case "$path" in
${cases.join("\n")}
  esac
  if [[ "$word" == -* ]]; then ids=""; fi
  COMPREPLY=($(compgen -W "$words $ids" -- "$word"))
  if [[ \${#COMPREPLY[@]} -eq 0 ]]; then COMPREPLY=($(compgen -f -- "$word")); fi
}
complete -o filenames -F _stacyvm stacyvm
`;
}

function zsh(nodes: Node[]): string {
  const described = (name: string, description: string): string =>
    quote(`${name.replaceAll(":", "\\:")}:${description.replaceAll("\n", " ")}`);
  const cases = nodes.map(({ path, commands, options, sandbox }) => {
    const words = [
      ...commands.map(({ name, description }) => described(name, description)),
      ...options.flatMap(({ flags, description }) => flags.map((flag) => described(flag, description))),
    ];
    const ids = sandbox ? ` ids=(\${(f)"$(stacyvm ls -q 2>/dev/null)"})` : "";
    return `    ${quote(path.join(" "))}) choices=(${words.join(" ")})${ids} ;;`;
  });
  return `#compdef stacyvm
# zsh completion for stacyvm: source <(stacyvm completion zsh)
_stacyvm() {
  local path_so_far="" next i
  local -a choices ids
  for ((i = 2; i < CURRENT; i++)); do
    next="\${path_so_far:+$path_so_far }\${words[i]}"
    case "$next" in
      ${pattern(nodes)}) path_so_far="$next" ;;
    esac
  done
  case "$path_so_far" in
${cases.join("\n")}
  esac
  _describe -t commands stacyvm choices
  if (( \${#ids} )); then _describe -t sandboxes sandbox ids; fi
  _files
}
compdef _stacyvm stacyvm
`;
}

function fish(nodes: Node[]): string {
  const lines = nodes.flatMap(({ path, commands, options, sandbox }) => {
    const last = path.at(-1);
    const condition =
      last === undefined
        ? "__fish_use_subcommand"
        : path.map((word) => `__fish_seen_subcommand_from ${word}`).join("; and ");
    const head = `complete -c stacyvm -n ${quote(condition)}`;
    return [
      ...commands.map(({ name, description }) => `${head} -f -a ${name} -d ${quote(description)}`),
      ...options.map(({ flags, value, description }) => {
        const each = flags.map((flag) => (flag.startsWith("--") ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`));
        return `${head} ${each.join(" ")}${value ? " -r" : ""} -d ${quote(description)}`;
      }),
      ...(sandbox ? [`${head} -f -a '(stacyvm ls -q 2>/dev/null)'`] : []),
    ];
  });
  return `# fish completion for stacyvm: stacyvm completion fish | source\n${lines.join("\n")}\n`;
}

/** Of a shell's `case`: all commands that can be gone into. */
function pattern(nodes: Node[]): string {
  return nodes
    .filter(({ path }) => path.length > 0)
    .map(({ path }) => quote(path.join(" ")))
    .join(" | ");
}

function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
