/** The interpreter's Python driver, run by this host's Python. */
import assert from "node:assert/strict";
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

interface Event {
  type: string;
  [field: string]: unknown;
}

let child: ChildProcessWithoutNullStreams;
let lines: AsyncIterator<string>;

async function next(): Promise<Event> {
  const { value, done } = await lines.next();
  assert.ok(!done, "the driver has ended");
  return JSON.parse(value);
}

async function run(code: string, env: Record<string, string> = {}): Promise<Event[]> {
  child.stdin.write(`${JSON.stringify({ code, env })}\n`);
  const events: Event[] = [];
  for (let event = await next(); event.type !== "end"; event = await next()) events.push(event);
  return events;
}

const brief = (events: Event[]) => events.map(({ type, text, name }) => [type, text ?? name]);

const program = fileURLToPath(new URL("drivers/python.py", import.meta.url));
const ipython = spawnSync("python3", ["-c", "import IPython"]).status === 0;

for (const engine of ["the standard library", "IPython"]) {
  const skip = engine === "IPython" && !ipython ? "this host's python3 has no IPython" : false;
  describe(`the Python driver by ${engine}`, { skip }, () => {
    before(async () => {
      // Without `site` there are no packages.
      child = spawn("python3", [...(engine === "IPython" ? [] : ["-S"]), "-u", program]);
      child.stderr.pipe(process.stderr);
      lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
      assert.deepEqual(await next(), { type: "ready" });
    });
    after(async () => {
      child.stdin.end();
      const [code] = await once(child, "exit");
      assert.equal(code, 0, "it ends with its input");
    });

    test("output of all kinds comes in its order, before the value", async () => {
      const events = await run("import os, sys\nprint('one')\nsys.stdout.flush()\nprint('two', end='')\n{'a': 1}");
      assert.deepEqual(brief(events), [
        ["stdout", "one\n"],
        ["stdout", "two"],
        ["result", "{'a': 1}"],
      ]);
      // Of two streams each has an order of its own; what is shown comes after both.
      const [last, ...both] = brief(await run("os.system('echo program')\nos.system('echo wrong >&2')")).reverse();
      assert.deepEqual(both.sort(), [
        ["stderr", "wrong\n"],
        ["stdout", "program\n"],
      ]);
      assert.deepEqual(last, ["result", "0"]);
    });

    test("what is printed at once comes in pieces, none of which is as large as an event may be", async () => {
      const texts = (await run("print('\"é\" ' * 60_000)")).map(({ type, text }) => {
        assert.equal(type, "stdout");
        assert.ok(String(text).length <= 65_536);
        return text;
      });
      assert.equal(texts.join(""), `${'"é" '.repeat(60_000)}\n`);
    });

    test("state stays, an error names its lines, and what follows works", async () => {
      await run("def f(x):\n    y = 0\n    return x / y");
      const [error, ...more] = await run("f(\n  1)");
      assert.deepEqual(
        [error?.type, error?.name, error?.value, more.length],
        ["error", "ZeroDivisionError", "division by zero", 0],
      );
      assert.match(String(error?.traceback), /line 3, in f.*return x \/ y/s);
      assert.doesNotMatch(String(error?.traceback), /driver\.py/);
      assert.deepEqual(brief(await run("if True print()")), [["error", "SyntaxError"]]);
      assert.deepEqual(brief(await run("raise SystemExit(3)")), [["error", "SystemExit"]]);
      if (engine === "IPython") assert.deepEqual(brief(await run("exit()")), [["error", "SystemExit"]]);
      assert.deepEqual(brief(await run("f(1.0) if False else 'still here'")), [["result", "'still here'"]]);
    });

    test("variables that no environment can have, errors without words, and lost streams end no context", async () => {
      await run("kept = 2");
      for (const env of [{ "A=B": "" }, { A: "\0" }]) {
        assert.deepEqual(brief(await run("1", env)), [["error", "ValueError"]]);
      }
      const wordless = "class Wordless(Exception):\n  def __str__(self): raise ValueError()\nraise Wordless()";
      assert.deepEqual(brief(await run(wordless)), [["error", "Wordless"]]);
      await run("import sys\nbefore, sys.stdout = sys.stdout, None");
      await run("sys.stdout = before");
      assert.deepEqual(brief(await run("kept")), [["result", "2"]]);
    });

    test("every form of a value; a form that fails hides no other", async () => {
      const [shown] = await run(`class Rich:
  def _repr_html_(self): return "<i>"
  def _repr_latex_(self): raise ValueError()
  def _repr_png_(self): return b"\\x89PNG"
  def _repr_mimebundle_(self, include=None, exclude=None): return {"application/json": {"a": [1]}, "application/x-own": "own"}
  def __repr__(self): return "rich"
Rich()`);
      assert.deepEqual(shown, {
        type: "result",
        is_main_result: true,
        ...{ html: "<i>", png: "iVBORw==", json: { a: [1] }, "application/x-own": "own", text: "rich" },
      });
      const [first] = await run('display({"text/markdown": "*x*"}, raw=True)');
      assert.deepEqual(first, { type: "result", is_main_result: false, markdown: "*x*" });
      assert.deepEqual(await run("None"), []);
      assert.deepEqual(await run("7;"), []);
    });

    test("a value of which no form can be made is an error", async () => {
      const broken = "class Broken:\n  def __repr__(self): raise ValueError('no form')\n";
      const [error, ...more] = await run(`${broken}Broken()`);
      assert.deepEqual([error?.type, error?.name, error?.value, more.length], ["error", "ValueError", "no form", 0]);
      assert.match(String(error?.traceback), /__repr__/);
      assert.deepEqual(brief(await run("1 + 1")), [["result", "2"]]);
    });

    test("many prints are few events, in the order of both streams; what is printed before a wait is told before it ends", async () => {
      const events = await run(
        "import sys\nfor i in range(5000): print(i)\nprint('wrong', file=sys.stderr)\nprint('last')\n'value'",
      );
      assert.ok(events.length < 1_000, String(events.length));
      const all = Array.from({ length: 5_000 }, (_, i) => `${i}\n`).join("");
      const [value, last, wrong, ...before] = events.reverse();
      assert.equal(
        before
          .reverse()
          .map(({ text }) => text)
          .join(""),
        all,
      );
      assert.deepEqual(brief([wrong, last, value] as Event[]), [
        ["stderr", "wrong\n"],
        ["stdout", "last\n"],
        ["result", "'value'"],
      ]);
      child.stdin.write(`${JSON.stringify({ code: "print('begun', end='')\nwhile True: pass", env: {} })}\n`);
      assert.deepEqual(brief([await next()]), [["stdout", "begun"]]);
      child.kill("SIGINT");
      assert.deepEqual(brief([await next()]), [["error", "KeyboardInterrupt"]]);
      assert.equal((await next()).type, "end");
    });

    test("what was printed before a fork is told once, and what the copy prints is not lost", async () => {
      const fork = "import os\nprint('before')\npid = os.fork()\nif pid == 0:\n  print('copy')\n  os._exit(0)\n";
      const events = brief(await run(`${fork}os.waitpid(pid, 0)\nprint('after')`));
      assert.deepEqual(events.map(([, text]) => text).join(""), "before\ncopy\nafter\n");
    });

    test("a program's words come after what was printed before it", async () => {
      const events = await run("import os\nprint('before')\nos.system('echo program');");
      assert.equal(events.map(({ text }) => text).join(""), "before\nprogram\n");
    });

    test("figures are shown where the code asks for it, each of its own, and at the end of a piece, also of one that fails", async () => {
      // The one thing of matplotlib that the driver goes by: figures by their numbers. The real one is in the long form (test/e2b-long.test.ts).
      const dir = await mkdtemp(join(tmpdir(), "pyplot-"));
      await mkdir(join(dir, "matplotlib"));
      await writeFile(join(dir, "matplotlib/__init__.py"), "");
      await writeFile(
        join(dir, "matplotlib/pyplot.py"),
        `class Figure:
  def __init__(self): self.axes = []
  def savefig(self, file, **_): file.write(b"PNG")
  def __repr__(self): return "figure " + "".join(self.axes)
Figure.__module__ = "matplotlib.figure"
open = []
def plot(what):
  if not open: open.append(Figure())
  open[0].axes.append(what)
def get_fignums(): return list(range(len(open)))
def figure(number): return open[number]
def close(which): open.clear()
def show(): raise NotImplementedError()
`,
      );
      await run(`import sys\nsys.path.insert(0, ${JSON.stringify(dir)})\nsys.modules.pop("matplotlib", None)`);
      const events = await run(
        "from matplotlib import pyplot as plt\nfor name in ['a', 'b']:\n  plt.plot(name)\n  plt.show()\n  print('after', name)\nplt.plot('c')\n'value'",
      );
      assert.deepEqual(brief(events), [
        ["result", "figure a"],
        ["stdout", "after a\n"],
        ["result", "figure b"],
        ["stdout", "after b\n"],
        ["result", "'value'"],
        ["result", "figure c"],
      ]);
      assert.deepEqual([events[0]?.png, events[0]?.is_main_result], ["UE5H", false]);
      const failed = brief(await run("plt.plot('d')\nraise ValueError()"));
      assert.deepEqual(failed.map(([type]) => type).sort(), ["error", "result"]);
      assert.deepEqual(await run("plt.get_fignums();"), []);
      await rm(dir, { recursive: true });
    });

    test("pictures that Pillow saves by a path are shown: so many of a piece, and none that is huge", async () => {
      const dir = await mkdtemp(join(tmpdir(), "pillow-"));
      await mkdir(join(dir, "PIL"));
      await writeFile(join(dir, "PIL/__init__.py"), "");
      const pillow = `class Image:
  def __init__(self, side): self.width = self.height = side
  def save(self, fp, format=None, **options): self.kept = (fp, format, options)
  def _repr_png_(self): return b"PNG"
`;
      await writeFile(join(dir, "PIL/Image.py"), pillow);
      await run(`import sys\nsys.path.insert(0, ${JSON.stringify(dir)})\nsys.modules.pop("PIL", None)`);
      const begin = "from PIL.Image import Image\nsmall, huge = Image(9), Image(2_001)\n";
      const events = await run(`${begin}small.save("a", "PNG", dpi=3)\nhuge.save("b")\nsmall.save(None)\nhuge.kept`);
      assert.deepEqual(
        events.map(({ png, text }) => png ?? text),
        ["UE5H", "('b', None, {})"],
      );
      assert.deepEqual(brief(await run("small.save('a', 'PNG', dpi=3); small.kept")).slice(1), [
        ["result", "('a', 'PNG', {'dpi': 3})"],
      ]);
      assert.equal((await run("for i in range(12): small.save('c')")).length, 10);
      await rm(dir, { recursive: true });
    });

    test("box plots as data: standing and lying", async () => {
      // What matplotlib makes of a box plot: filled boxes, and lines for whiskers, their ends, medians and points beyond. The driver's own
      // \`input\` leads to what else it has.
      const plot = `
class Line:
  def __init__(self, xs, ys): self.xs, self.ys = xs, ys
  def get_xdata(self): return self.xs
  def get_ydata(self): return self.ys
class PathPatch:
  def __init__(self, *corners): self.vertices = corners
  def get_path(self): return self
class Axes:
  def __init__(self, turn):
    each = lambda *points: [point[::-1] if turn else point for point in points]
    line = lambda *points: Line(*zip(*each(*points))) if points else Line([], [])
    self.patches = [PathPatch(*each((.75, 2), (1.25, 2), (1.25, 4), (.75, 4), (.75, 2))), PathPatch(*each((1.75, 5), (2.25, 5), (2.25, 8), (1.75, 8), (1.75, 5)))]
    self.lines = [
      line((1, 2), (1, 1)), line((1, 4), (1, 6)), line((.9, 1), (1.1, 1)), line((.9, 6), (1.1, 6)), line((.75, 3), (1.25, 3)), line((1, 9), (1, 0)),
      line((2, 5), (2, 4)), line((2, 8), (2, 9)), line((1.9, 4), (2.1, 4)), line((1.9, 9), (2.1, 9)), line((1.75, 7), (2.25, 7)), line(),
    ]
import builtins
box_data = builtins.input.__globals__["box_data"]
`;
      const value = async (code: string) => (await run(code)).find(({ type }) => type === "result")?.text;
      await run(plot);
      const boxes = [
        "{'min': 1.0, 'first_quartile': 2.0, 'median': 3.0, 'third_quartile': 4.0, 'max': 6.0, 'outliers': [9.0, 0.0]}",
        "{'min': 4.0, 'first_quartile': 5.0, 'median': 7.0, 'third_quartile': 8.0, 'max': 9.0, 'outliers': []}",
      ];
      for (const [turn, upright] of [
        ["False", "True"],
        ["True", "False"],
      ]) {
        assert.equal(await value(`str(box_data(Axes(${turn})))`), `"(${upright}, [${boxes.join(", ")}])"`);
      }
    });

    test("an interruption ends what runs and nothing else", async () => {
      const stopped = run("kept = 1\nprint('begun', flush=True)\nwhile True: pass");
      setTimeout(() => child.kill("SIGINT"), 300);
      assert.deepEqual(brief(await stopped), [
        ["stdout", "begun\n"],
        ["error", "KeyboardInterrupt"],
      ]);
      child.kill("SIGINT"); // between two pieces it means nothing
      assert.deepEqual(brief(await run("kept")), [["result", "1"]]);
    });

    test("environment of one call, await, lines for the shell, no standard input", async () => {
      assert.deepEqual(brief(await run("os.environ['E2B_TEST']", { E2B_TEST: "v" })), [["result", "'v'"]]);
      assert.deepEqual(brief(await run("os.environ.get('E2B_TEST')")), []);
      assert.deepEqual(brief(await run("import asyncio\nawait asyncio.sleep(0, 'slept')")), [["result", "'slept'"]]);
      assert.deepEqual(brief(await run("if True:\n    !echo $((1+2))\n'after'")), [
        ["stdout", "3\n"],
        ["result", "'after'"],
      ]);
      const odd =
        engine === "IPython"
          ? ["stderr", "UsageError: Line magic function `%unknown` not found.\n"]
          : ["error", "SyntaxError"];
      assert.deepEqual(brief(await run("%unknown")), [odd]);
      assert.deepEqual(brief(await run("input()")), [["error", "StdinNotImplementedError"]]);
      assert.deepEqual(brief(await run("import sys; sys.stdin.read()")), [["result", "''"]]);
    });
  });
}
