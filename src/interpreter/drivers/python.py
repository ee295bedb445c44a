"""Runs code that comes as lines of JSON and tells what it does as lines of JSON; one process a context. By IPython where the image
has it (ipykernel brings it), else by the standard library alone.

In:   {"code": "...", "env": {...}} (with "prepare": true it is not counted among the user's), or {"mark": "...", "env": {...}, "seed": "hex"} from a host that begins to follow
Out:  {"type": "ready"}, then for each piece of code stdout, stderr, result, error, and at last {"type": "end", "count": n};
      {"type": "configured", "mark": "..."} after the other, which gives a process that has run no code of its user yet that
      environment and random numbers of its own: it may be one of many copies

SIGINT interrupts the code that runs. Output of programs that the code starts is caught as well: descriptors 1 and 2 are pipes,
what the host reads is a copy of the first.
"""
import ast
import asyncio
import base64
import random
import re
import builtins
import importlib.util
import inspect
import io
import json
import linecache
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import types
import warnings

out = os.fdopen(os.dup(1), "wb", buffering=0)
commands = os.fdopen(os.dup(0), "rb")
lock = threading.Lock()
draining = threading.Lock()
catchers = []


def tell(kind, **fields):
    """What comes after all that was printed so far."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass  # the code has put something else in its place
    gathered.flush()
    # Programs write by themselves: what they wrote is read first.
    with draining:
        for catcher in catchers:
            if catcher.is_alive():  # not in a process that the code has forked
                catcher.drain()
    say(kind, **fields)


def say(kind, **fields):
    line = json.dumps({"type": kind, **fields}, default=str).encode("utf-8", "surrogateescape") + b"\n"
    with lock:
        view = memoryview(line)
        while view:
            view = view[out.write(view):]


MOST_GATHERED, GATHERED_FOR = 65536, 0.05


class Gathered(threading.Thread):
    """What Python prints, in its order: told when there is much of it, when some time has passed, or before anything else is told. An
    event for each line would take longer than the lines."""

    def __init__(self):
        super().__init__(daemon=True)
        # What is printed by an object's end may come while one is held.
        self.lock, self.telling = threading.RLock(), threading.RLock()
        self.parts, self.size = [], 0
        self.waiting = threading.Event()
        # A copy of this process has its memory and not its threads.
        self.alone = False
        os.register_at_fork(before=self.before_fork, after_in_parent=self.after_fork, after_in_child=self.in_child)

    def run(self):
        while True:
            self.waiting.wait()
            time.sleep(GATHERED_FOR)
            self.waiting.clear()
            self.flush()

    def add(self, kind, text):
        with self.lock:
            if not self.parts or self.parts[-1][0] != kind:
                self.parts.append((kind, []))
            self.parts[-1][1].append(text)
            self.size += len(text)
        if self.size > MOST_GATHERED or (self.alone and "\n" in text):
            self.flush()
        elif not self.waiting.is_set():
            self.waiting.set()

    def flush(self):
        with self.telling:
            with self.lock:
                parts, self.parts, self.size = self.parts, [], 0
            for kind, texts in parts:
                text = "".join(texts)
                # In pieces: how large one event may be has a bound, what is printed has none.
                for at in range(0, len(text), 65536):
                    say(kind, text=text[at : at + 65536])

    def before_fork(self):
        self.telling.acquire()
        self.flush()
        self.lock.acquire()

    def after_fork(self):
        self.lock.release()
        self.telling.release()

    def in_child(self):
        self.alone = True
        self.after_fork()


gathered = Gathered()


class Catcher(threading.Thread):
    """What is written to a descriptor by anyone but Python's own print."""

    def __init__(self, number, kind):
        super().__init__(daemon=True)
        self.kind = kind
        self.number = number
        self.reader, writer = os.pipe()
        os.dup2(writer, number)
        os.close(writer)
        self.mark = b"\x00" + os.urandom(16)
        self.awaited = False
        self.seen = threading.Event()

    def run(self):
        pending = b""
        while True:
            pending += os.read(self.reader, 65536)
            if self.mark in pending:
                self.tell(pending.replace(self.mark, b""))
                pending = b""
                self.seen.set()
            elif not self.awaited or len(pending) > 65536:
                self.tell(pending)
                pending = b""

    def tell(self, data):
        if data:
            gathered.flush()
            say(self.kind, text=data.decode("utf-8", "replace"))

    def drain(self):
        """Returns when all that was written before has been told."""
        self.seen.clear()
        self.awaited = True
        try:
            os.write(self.number, self.mark)
            self.seen.wait(5)
        except OSError:
            pass  # the code has closed it
        finally:
            self.awaited = False


class Printer(io.TextIOBase):
    encoding = "utf-8"
    errors = "replace"

    def __init__(self, kind, number):
        self.kind = kind
        self.number = number

    def writable(self):
        return True

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError("write() argument must be str, not " + type(text).__name__)
        if text:
            gathered.add(self.kind, text)
        return len(text)

    def flush(self):
        gathered.flush()

    def fileno(self):
        return self.number

    def isatty(self):
        return False


class StdinNotImplementedError(RuntimeError):
    pass


def no_input(*_):
    raise StdinNotImplementedError("raw_input was called, but this frontend does not support input requests.")


MIME = {
    "text/plain": "text",
    "text/html": "html",
    "text/markdown": "markdown",
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "application/pdf": "pdf",
    "text/latex": "latex",
    "application/json": "json",
    "application/javascript": "javascript",
    # E2B's own, of its kernels.
    "e2b/data": "data",
    "e2b/chart": "chart",
}
FORMS = ("html", "markdown", "svg", "png", "jpeg", "pdf", "latex", "json", "javascript")


def encoded(value):
    return base64.b64encode(value).decode() if isinstance(value, (bytes, bytearray)) else value


def formats(value):
    """Every form in which a value can be shown."""
    found = {}
    if not inspect.isclass(value):
        bundle = getattr(value, "_repr_mimebundle_", None)
        if callable(bundle):
            try:
                made = bundle(include=None, exclude=None)
                made = made[0] if isinstance(made, tuple) else made
                found.update({MIME.get(name, name): encoded(each) for name, each in (made or {}).items()})
            except Exception:
                pass
        for name in FORMS:
            make = getattr(value, "_repr_" + name + "_", None)
            if name in found or not callable(make):
                continue
            try:
                made = make()
            except Exception:
                continue
            made = made[0] if isinstance(made, tuple) else made
            if made is not None:
                found[name] = encoded(made)
    if "text" not in found:
        found["text"] = repr(value)
    found.update(extras(value))
    return found


def extras(value):
    """Forms that a value of a well-known library does not give by itself."""
    found = {}
    module, kind = type(value).__module__, type(value).__name__
    if module.startswith("pandas") and kind == "DataFrame":
        try:
            columns = json.loads(value.to_json(orient="columns", date_format="iso"))
            found["data"] = {str(name): list(column.values()) for name, column in columns.items()}
        except Exception:
            pass
    if module.startswith("matplotlib.") and kind == "Figure":
        found.update(picture(value))
    return found


def picture(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    found = {"png": base64.b64encode(buffer.getvalue()).decode()}
    try:
        found["chart"] = chart(figure)
    except Exception:
        pass
    return found


def chart(figure):
    """What a figure shows, as data: lines, points, bars and pies of its axes."""
    charts = [each for each in map(axes_data, figure.axes) if each]
    if len(charts) == 1:
        return charts[0]
    title = figure._suptitle.get_text() if getattr(figure, "_suptitle", None) else ""
    if not charts and len(figure.axes) == 1:
        title = title or figure.axes[0].get_title()
    return {"type": "superchart" if charts else "unknown", "title": title or None, "elements": charts}


def unit_in(label):
    """What a label has in brackets."""
    found = re.search(r"\(([^)]+)\)|\[([^\]]+)\]", label)
    return found and (found.group(1) or found.group(2))


def axis_data(axis, scale, prefix):
    places = [float(at) for at in axis.get_majorticklocs()]
    names = [str(label.get_text()) for label in axis.get_majorticklabels()]
    converter = type(getattr(axis, "converter", None)).__name__
    ticks = places
    if "Date" in converter:
        import matplotlib.dates

        scale, ticks = "datetime", [matplotlib.dates.num2date(at).isoformat() for at in places]
    elif scale == "linear" and places == list(range(len(places))) and all(str(i) != name for i, name in enumerate(names)):
        scale = "categorical"
    return {prefix + "_ticks": ticks, prefix + "_tick_labels": names, prefix + "_scale": scale}


def named(labels, i):
    return labels[i] if i < len(labels) else str(i)


def numbered(artist, prefix, word):
    """What its maker called it, or its number."""
    label = str(artist.get_label())
    return word + " " + label[len(prefix):] if label.startswith(prefix) else label


def is_ruler(line):
    """Two points that a straight line of the grid's directions connects."""
    xs, ys = line.get_xdata(), line.get_ydata()
    return len(xs) == len(ys) == 2 and bool(xs[0] == xs[1] or ys[0] == ys[1])


def edges(outline):
    """Of a box: left, right, and where its sides of the whole width are, which a notch may go beyond."""
    xs = [x for x, _ in outline]
    left, right = min(xs), max(xs)
    sides = [y for (x, y), (to, at) in zip(outline, outline[1:]) if y == at and abs(x - to) == right - left] or [y for _, y in outline]
    return left, right, min(sides), max(sides)


def box_data(axes):
    """Of box plots whose boxes are filled: each box, and the lines in its width. @returns whether they stand, and what each shows"""
    lines = [([float(x) for x in line.get_xdata()], [float(y) for y in line.get_ydata()]) for line in axes.lines]
    outlines = [[(float(x), float(y)) for x, y in patch.get_path().vertices] for patch in axes.patches]
    # A whisker stands in the middle of its box's width, and begins where that ends.
    left, right, low, high = edges(outlines[0])
    upright = any(
        len(set(y)) == 2 and all(abs(each - (left + right) / 2) < 1e-9 for each in x) and (min(y) == high or max(y) == low)
        for x, y in lines
    )
    if not upright:
        lines, outlines = [(y, x) for x, y in lines], [[(y, x) for x, y in outline] for outline in outlines]
    found = []
    for outline in outlines:
        left, right, low, high = edges(outline)
        own = [(x, y) for x, y in lines if x and left <= min(x) and max(x) <= right]
        whiskers = [y for _, y in own if len(set(y)) == 2 and (min(y) == high or max(y) == low)]
        lowest, highest = min(map(min, whiskers), default=low), max(map(max, whiskers), default=high)
        # The widest of the lines across it.
        level = [(max(x) - min(x), y[0]) for x, y in own if len(y) == 2 and y[0] == y[1] and low <= y[0] <= high]
        beyond = [each for x, y in own if len(set(x)) == 1 for each in y if each < lowest or each > highest]
        found.append({
            **{"min": lowest, "first_quartile": low, "median": max(level)[1] if level else None},
            **{"third_quartile": high, "max": highest, "outliers": beyond},
        })
    return upright, found


def axes_data(axes):
    x_label, y_label = axes.get_xlabel(), axes.get_ylabel()
    base = {
        **{"title": axes.get_title() or None, "x_label": x_label or None, "y_label": y_label or None},
        **{"x_unit": unit_in(x_label), "y_unit": unit_in(y_label)},
    }
    names = [str(label.get_text()) for label in axes.get_xticklabels()]
    ticks = {**axis_data(axes.xaxis, axes.get_xscale(), "x"), **axis_data(axes.yaxis, axes.get_yscale(), "y")}
    wedges = [each for each in axes.patches if type(each).__name__ == "Wedge"]
    if wedges:
        return {"type": "pie", "title": base["title"], "elements": [
            {"label": str(each.get_label()), "angle": round(float(each.theta2 - each.theta1), 3), "radius": float(each.r)}
            for each in wedges
        ]}
    lying = [str(label.get_text()) for label in axes.get_yticklabels()]
    turned = {**base, **{"x" + name: base["y" + name] for name in ("_label", "_unit")}, **{"y" + name: base["x" + name] for name in ("_label", "_unit")}}
    groups = [each for each in axes.containers if hasattr(each, "patches")]
    if groups:
        across = [getattr(group, "orientation", None) == "horizontal" for group in groups]
        return {"type": "bar", **(turned if all(across) else base), "elements": [
            {
                "label": named(lying if flat else names, i),
                "group": numbered(group, "_container", "Group"),
                "value": float(bar.get_width() if flat else bar.get_height()),
            }
            for group, flat in zip(groups, across) for i, bar in enumerate(group.patches)
        ]}
    boxes = axes.patches and all(type(each).__name__ == "PathPatch" for each in axes.patches) and not axes.collections
    if boxes and axes.lines:
        upright, elements = box_data(axes)
        labels = names if upright else lying
        return {"type": "box_and_whisker", **(base if upright else turned), "elements": [
            {"label": named(labels, i), **each} for i, each in enumerate(elements)
        ]}
    lines = [line for line in axes.lines if not is_ruler(line)]
    if lines:
        return {"type": "line", **base, **ticks, "elements": [
            {
                "label": numbered(line, "_child", "Line"),
                "points": [[plain(x), plain(y)] for x, y in zip(line.get_xdata(), line.get_ydata())],
            }
            for line in lines
        ]}
    if axes.collections:
        return {"type": "scatter", **base, **ticks, "elements": [
            {"label": str(each.get_label()), "points": [[float(x), float(y)] for x, y in each.get_offsets()]}
            for each in axes.collections
        ]}
    return None


def plain(value):
    if type(value).__name__ == "datetime64":
        value = value.astype("datetime64[us]")
    value = value.item() if hasattr(value, "item") else value
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value if isinstance(value, (int, float)) else str(value)


def display(*values, raw=False, **_):
    for value in values:
        if raw and isinstance(value, dict):
            tell("result", is_main_result=False, **{MIME.get(name, name): encoded(each) for name, each in value.items()})
        else:
            tell("result", is_main_result=False, **formats(value))


def shell(line):
    """A line that begins with an exclamation mark, or one of a few magics."""
    command = line[1:].strip()
    if line.startswith("%"):
        name, _, rest = command.partition(" ")
        if name == "cd":
            return os.chdir(os.path.expanduser(rest.strip() or "~"))
        if name != "pip":
            raise SyntaxError("the magic %" + name + " is not known here")
        command = sys.executable + " -m pip " + rest
    subprocess.run(command, shell=True, stdin=subprocess.DEVNULL)


def parsed(code, name):
    try:
        return ast.parse(code, name)
    except SyntaxError:
        lines = code.split("\n")
        changed = [
            line[: len(line) - len(line.lstrip())] + "__shell__(" + repr(line.strip()) + ")" if line.lstrip()[:1] in ("!", "%") else line
            for line in lines
        ]
        if changed == lines:
            raise
        return ast.parse("\n".join(changed), name)


space = types.ModuleType("__main__")
sys.modules["__main__"] = space
space.__dict__.update(__builtins__=builtins, display=display, __shell__=shell)
builtins.input = no_input
count = 0
running = False
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)


def evaluate(node, name, mode):
    compiled = compile(node, name, mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    value = eval(compiled, space.__dict__)
    return loop.run_until_complete(value) if compiled.co_flags & inspect.CO_COROUTINE else value


def show_by_pyplot(pyplot):
    """A backend of our own would be known to this process alone, and named in the environment of every program that the code starts."""
    pyplot.show = lambda *_, **__: show_figures()


# Of pictures that are saved: what a piece of code shows by that, and how large each may be, in pixels.
MOST_SAVED, MOST_PIXELS = 10, 4_000_000
saved = 0


def show_by_saving(pillow):
    """A picture that goes into a file is shown, as E2B's clients expect: `savefig` saves by it, too."""
    save = pillow.Image.save

    def saving(image, fp, format=None, **options):
        global saved
        save(image, fp, format, **options)
        if isinstance(fp, str) and saved < MOST_SAVED and image.width * image.height <= MOST_PIXELS:
            saved += 1
            display(image)

    pillow.Image.save = saving


class Finder:
    """Changes a module when the code imports it."""

    def __init__(self, name, change):
        self.name = name
        self.change = change

    def find_spec(self, name, path, target=None):
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            self.change(module)

        spec.loader.exec_module = exec_module
        return spec


def show_figures():
    """Those that have something in them, in the order of their numbers; a later one begins anew."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return
    for number in pyplot.get_fignums():
        figure = pyplot.figure(number)
        if figure.axes:
            tell("result", is_main_result=False, text=repr(figure), **picture(figure))
    pyplot.close("all")


def plain_python(code):
    """Runs a piece of code and shows its value."""
    name = "Cell In[%d]" % count
    linecache.cache[name] = (len(code), None, code.splitlines(True), name)
    body = parsed(code, name)
    quiet = code.rstrip().endswith(";")
    last = body.body.pop() if body.body and isinstance(body.body[-1], ast.Expr) and not quiet else None
    evaluate(body, name, "exec")
    value = evaluate(ast.Expression(last.value), name, "eval") if last is not None else None
    if value is not None:
        space.__dict__["_"] = value
        tell("result", is_main_result=True, **formats(value))


def bundled(data):
    return {MIME.get(name, name): encoded(each) for name, each in data.items()}


def ipython():
    """The same by IPython, with its magics. @returns `None` where the image has none"""
    try:
        from IPython.core.displayhook import DisplayHook
        from IPython.core.displaypub import DisplayPublisher
        from IPython.core.interactiveshell import InteractiveShell
    except ImportError:
        return None

    class Publisher(DisplayPublisher):
        def publish(self, data, *_, **__):
            tell("result", is_main_result=False, **bundled(data))

        def clear_output(self, wait=False):
            pass

    class Hook(DisplayHook):
        def write_output_prompt(self):
            pass

        def write_format_data(self, format_dict, md_dict=None):
            tell("result", is_main_result=True, **bundled(format_dict))

        def finish_displayhook(self):
            self._is_active = False

    class Shell(InteractiveShell):
        formatting = False
        failed = None

        def ask_exit(self):
            raise SystemExit  # the context stays, as it does when the code raises this itself

        def _showtraceback(self, etype, evalue, stb):
            if self.formatting:
                self.failed = (etype, evalue, stb)  # a form that fails hides no other
                return
            tell("error", name=etype.__name__, value=worded(evalue), traceback="\n".join(stb))

        def system(self, command):
            self.user_ns["_exit_code"] = subprocess.run(self.var_expand(command, depth=1), shell=True, stdin=subprocess.DEVNULL).returncode

    # Its profile and history would be files in the user's home directory.
    shell = Shell.instance(
        display_pub_class=Publisher, displayhook_class=Hook, user_module=space, history_load_length=0, colors="NoColor", autoindent=False
    )
    shell.history_manager.enabled = False
    formatter = shell.display_formatter
    own = formatter.format

    def every_form(value, include=None, exclude=None):
        shell.formatting, shell.failed = True, None
        try:
            data, about = own(value, include=include, exclude=exclude)
        finally:
            shell.formatting = False
        if shell.failed is not None and not data:
            shell._showtraceback(*shell.failed)
        data.update({name: each for name, each in extras(value).items() if name not in ("png",) or "image/png" not in data})
        return data, about

    formatter.format = every_form

    def run_cell(code):
        shell.execution_count = max(count, 1)
        shell.run_cell(code, store_history=True)

    return run_cell


engine = plain_python


def worded(error):
    try:
        return str(error)
    except Exception:
        return ""  # an exception of the code's own, which cannot be written


def run(code, env, prepare):
    global count, running, saved
    count += not prepare
    saved = 0
    before = {key: os.environ.get(key) for key in env}
    try:
        os.environ.update(env)  # which refuses names and values that no environment can have
        running = True
        try:
            engine(code)
        finally:
            show_figures()
    except BaseException as error:
        running = False
        frames = error.__traceback__
        while frames is not None and not frames.tb_frame.f_code.co_filename.startswith("Cell In"):
            frames = frames.tb_next
        text = "".join(traceback.format_exception(type(error), error, frames))
        tell("error", name=type(error).__name__, value=worded(error), traceback=text)
    finally:
        running = False
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def configure(env, seed):
    if count > 0:
        return  # what its user has made of it stays
    os.environ.update(env)
    random.seed(bytes.fromhex(seed))
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(list(bytes.fromhex(seed)))


def interrupt(*_):
    if running:
        raise KeyboardInterrupt()


def main():
    global engine
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    catchers.extend((Catcher(1, "stdout"), Catcher(2, "stderr")))
    for thread in (gathered, *catchers):
        thread.start()
    sys.stdout, sys.stderr = Printer("stdout", 1), Printer("stderr", 2)
    sys.stdin = open(os.devnull)
    os.environ.setdefault("MPLBACKEND", "Agg")
    warnings.filterwarnings("ignore", message=".*non-interactive.*|To exit: use")
    signal.signal(signal.SIGINT, interrupt)
    sys.path.insert(0, "")
    sys.argv = [""]
    sys.meta_path[:0] = [Finder("matplotlib.pyplot", show_by_pyplot), Finder("PIL.Image", show_by_saving)]
    engine = ipython() or plain_python
    say("ready")
    for line in commands:
        request = json.loads(line)
        if "mark" in request:
            configure(request["env"], request["seed"])
            say("configured", mark=request["mark"])
            continue
        run(request["code"], request.get("env") or {}, request.get("prepare", False))
        tell("end", count=count)


main()
