/**
 * A language model with one tool: Python in a sandbox. Any server that speaks the chat completions format will do:
 *
 *     MODEL_URL=https://api.example.com/v1 MODEL_KEY=... MODEL=name node examples/agent-loop.ts "What is the 20th prime?"
 */
import { Sandbox } from "../sdk/src/index.ts";

interface ToolCall {
  id: string;
  function: { name: string; arguments: string };
}
interface Message {
  role: string;
  content: string | null;
  tool_calls?: ToolCall[];
  tool_call_id?: string;
}

const { MODEL_URL = "http://127.0.0.1:8000/v1", MODEL_KEY = "", MODEL = "default" } = process.env;
const question = process.argv[2] ?? "What is the sum of the first 100 primes?";
const MOST_STEPS = 10;

const tools = [
  {
    type: "function",
    function: {
      name: "python",
      description: "Runs a Python program in a sandbox that keeps its files. Print what you want to see.",
      parameters: { type: "object", properties: { code: { type: "string" } }, required: ["code"] },
    },
  },
];

async function ask(messages: Message[]): Promise<Message> {
  const response = await fetch(`${MODEL_URL}/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${MODEL_KEY}` },
    body: JSON.stringify({ model: MODEL, messages, tools }),
    signal: AbortSignal.timeout(120_000),
  });
  if (!response.ok) throw new Error(`the model answered ${response.status}: ${await response.text()}`);
  const { choices } = (await response.json()) as { choices: { message: Message }[] };
  const [first] = choices;
  if (first === undefined) throw new Error("the model gave no answer");
  return first.message;
}

await using sandbox = await Sandbox.create({ image: "stacyvm/python", ttl: "10m" });

async function run(call: ToolCall): Promise<string> {
  const { code } = JSON.parse(call.function.arguments) as { code: string };
  console.error(`--- runs in ${sandbox.id}\n${code}\n---`);
  // Whatever the program does, it can only harm its sandbox, and only for so long.
  await sandbox.files.write("/workspace/step.py", code);
  const result = await sandbox.exec(["timeout", "30", "python3", "/workspace/step.py"], { workdir: "/workspace" });
  return `exit code ${result.exitCode}\n${result.stdout}${result.stderr}`.slice(0, 8_000);
}

const messages: Message[] = [{ role: "user", content: question }];
for (let step = 0; step < MOST_STEPS; step++) {
  const answer = await ask(messages);
  messages.push(answer);
  if (answer.tool_calls === undefined || answer.tool_calls.length === 0) {
    console.log(answer.content);
    break;
  }
  for (const call of answer.tool_calls) {
    messages.push({ role: "tool", tool_call_id: call.id, content: await run(call) });
  }
}
