import assert from "node:assert/strict";
import { test } from "node:test";
import { Client } from "./client.ts";

/** A server whose event streams are these texts, one after another, each of which breaks at its end; the last one stays open. */
function clientOf(streams: string[]): { client: Client; asked: (string | null)[] } {
  const asked: (string | null)[] = [];
  const answer = async (input: unknown, init?: RequestInit): Promise<Response> => {
    const at = asked.push(new URL(String(input)).searchParams.get("last_event_id")) - 1;
    const text = streams[at] ?? "";
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(new TextEncoder().encode(text));
        const end = (): void => controller.error(new Error("the connection broke"));
        if (at < streams.length - 1) setTimeout(end, 20);
        else init?.signal?.addEventListener("abort", end);
      },
    });
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  };
  return { client: new Client({ url: "http://server.invalid", fetch: answer as typeof fetch }), asked };
}

const event = (n: number): string =>
  `id: evt-${n}\ndata: ${JSON.stringify({ id: `evt-${n}`, type: "sandbox.running", timestamp: "t" })}\n\n`;

test("a stream of events that breaks before its first one continues from where it began", async () => {
  const { client, asked } = clientOf([": connected\nid: evt-5\nretry: 2000\n\n", event(6)]);
  for await (const { id } of client.events()) {
    assert.equal(id, "evt-6");
    break;
  }
  assert.deepEqual(asked, [null, "evt-5"]);
});

test("after a break it continues from the last event, and from a later heartbeat; a loop that was left asks no more", async () => {
  const { client, asked } = clientOf([`${event(7)}: heartbeat\nid: evt-9\n\n`, event(10)]);
  const seen: string[] = [];
  for await (const { id } of client.events({ after: "evt-1" })) {
    seen.push(id);
    if (seen.length === 2) break;
  }
  assert.deepEqual(
    [seen, asked],
    [
      ["evt-7", "evt-10"],
      ["evt-1", "evt-9"],
    ],
  );
});
