/** Vercel's AI SDK: E2B's code interpreter as a tool, with the SDK's own scripted model. */
import { Sandbox } from "@e2b/code-interpreter";
import * as ai from "ai";
import * as testing from "ai/test";
import { z } from "zod";

const python = ai.tool({
  description: "Execute Python code in a notebook and return its result.",
  inputSchema: z.object({ code: z.string() }),
  execute: async ({ code }) => {
    const sandbox = await Sandbox.create();
    try {
      const { results, logs } = await sandbox.runCode(code);
      return { text: results[0]?.text, logs };
    } finally {
      await sandbox.kill();
    }
  },
});
const Scripted = testing.MockLanguageModelV4 ?? testing.MockLanguageModelV3 ?? testing.MockLanguageModelV2;
const none = { total: 0, noCache: 0, cacheRead: 0, cacheWrite: 0, text: 0, reasoning: 0 };
const usage = { inputTokens: none, outputTokens: none };
let turn = 0;
const model = new Scripted({
  doGenerate: async ({ prompt }) => {
    turn += 1;
    if (turn === 1) {
      const input = JSON.stringify({ code: "import math; math.factorial(5)" });
      const content = [{ type: "tool-call", toolCallId: "1", toolName: "python", input }];
      return { content, finishReason: { unified: "tool-calls", raw: undefined }, usage, warnings: [] };
    }
    const text = JSON.stringify(prompt).includes("120") ? "it is 120" : "the tool said nothing";
    return {
      content: [{ type: "text", text }],
      finishReason: { unified: "stop", raw: undefined },
      usage,
      warnings: [],
    };
  },
});
const { text } = await ai.generateText({
  model,
  tools: { python },
  stopWhen: ai.stepCountIs(3),
  prompt: "What is 5!?",
});
console.log("answer:", text);
