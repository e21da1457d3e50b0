"""Runs the code cells of a notebook in order, in this process, and keeps an executed copy.

No kernel, no sockets: the notebook is the process of the job, so signals, memory limits, exit codes and autologging are as for a script. With
IPython in the environment cells may use magics and rich output; without it they are plain Python.

usage: run_notebook.py NOTEBOOK [WORDS...]   the copy goes into $PLINTH_OUTPUT_DIR; WORDS are sys.argv[1:] of the cells
exit: 0; 1 when a cell failed; what a cell gave to sys.exit
"""

import ast
import io
import json
import os
import signal
import sys
import traceback
import types

# characters of text that are kept of one cell; all of it is in the log
MOST_TEXT = 10_000_000


class Copy:
    """The notebook with its outputs, written after every cell: whatever happens, what was done so far is there."""

    def __init__(self, notebook, path):
        self.notebook = notebook
        self.path = path
        self.outputs = None
        self.room = 0

    def begin(self, cell, count):
        cell["execution_count"] = count
        self.outputs = cell["outputs"] = []
        self.room = MOST_TEXT

    def text(self, name, text):
        if self.outputs is None or not text:
            return
        if self.room <= 0:
            return
        kept = text[: self.room]
        self.room -= len(kept)
        if self.room <= 0:
            kept += "\n… the rest is in the log of the job\n"
        last = self.outputs[-1] if self.outputs else None
        if last and last["output_type"] == "stream" and last["name"] == name:
            last["text"].append(kept)
        else:
            self.outputs.append({"output_type": "stream", "name": name, "text": [kept]})

    def add(self, output):
        if self.outputs is not None:
            self.outputs.append(output)

    def save(self):
        for cell in self.notebook["cells"]:
            for output in cell.get("outputs") or []:
                # as Jupyter writes it: lines
                if output.get("output_type") == "stream" and isinstance(output["text"], list):
                    output["text"] = "".join(output["text"]).splitlines(True)
        part = "%s.part-%d" % (self.path, os.getpid())
        with open(part, "w", encoding="utf-8") as file:
            json.dump(self.notebook, file, ensure_ascii=False, indent=1, default=str)
            file.write("\n")
        os.replace(part, self.path)


class Stream(io.TextIOBase):
    """Into the log at once, and into the copy."""

    def __init__(self, real, name, copy):
        self.real = real
        self.name = name
        self.copy = copy

    encoding = property(lambda self: self.real.encoding)
    errors = property(lambda self: self.real.errors)
    buffer = property(lambda self: self.real.buffer)

    def writable(self):
        return True

    def write(self, text):
        # the copy first: what somebody has seen in the log is in it
        self.copy.text(self.name, text)
        self.real.write(text)
        if "\n" in text or "\r" in text:
            self.real.flush()
        return len(text)

    def flush(self):
        self.real.flush()

    def fileno(self):
        return self.real.fileno()

    def isatty(self):
        return False


class Failed(Exception):
    def __init__(self, error):
        super().__init__(str(error))
        self.error = error


class PlainCells:
    """Python alone: the value of a last expression is shown, as in Jupyter."""

    def __init__(self, copy, folder):
        self.copy = copy
        self.module = types.ModuleType("__main__")
        self.module.__dict__["__builtins__"] = __builtins__
        sys.modules["__main__"] = self.module

    def run(self, source, count):
        try:
            tree = ast.parse(source, "<cell %d>" % count)
        except SyntaxError as error:
            if any(line.lstrip().startswith(("%", "!")) for line in source.splitlines()):
                error = SyntaxError("the cell uses % or ! of IPython, which is not in the environment: add ipython to its requirements")
            self._tell(error, [])
            raise Failed(error) from None
        last = tree.body[-1] if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        body = ast.Module(tree.body[:-1] if last else tree.body, [])
        # lines of a traceback are looked up here
        import linecache

        linecache.cache["<cell %d>" % count] = (len(source), None, source.splitlines(True), "<cell %d>" % count)
        names = self.module.__dict__
        try:
            exec(compile(body, "<cell %d>" % count, "exec"), names)
            value = eval(compile(ast.Expression(last.value), "<cell %d>" % count, "eval"), names) if last else None
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            frames = traceback.format_exception(type(error), error, error.__traceback__.tb_next)
            self._tell(error, "".join(frames).splitlines())
            raise Failed(error) from None
        if value is not None:
            print_result(self.copy, {"text/plain": repr(value)}, {}, count)

    def _tell(self, error, frames):
        lines = frames or traceback.format_exception_only(type(error), error)
        sys.__stderr__.write("".join(line.rstrip("\n") + "\n" for line in lines))
        self.copy.add(error_output(error, lines))


class IPythonCells:
    def __init__(self, copy, folder):
        from IPython.core.displayhook import DisplayHook
        from IPython.core.displaypub import DisplayPublisher
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets import Type
        from traitlets.config import Config

        class Publisher(DisplayPublisher):
            def publish(self, data, metadata=None, *args, **named):
                text = data.get("text/plain")
                if text:
                    sys.__stdout__.write("%s\n" % text)
                    sys.__stdout__.flush()
                copy.add({"output_type": "display_data", "data": bundle(data), "metadata": metadata or {}})

        class Hook(DisplayHook):
            def write_output_prompt(self):
                pass

            def write_format_data(self, format_dict, md_dict=None):
                print_result(copy, format_dict, md_dict or {}, self.prompt_count)

            def finish_displayhook(self):
                sys.stdout.flush()
                self._is_active = False

        class Shell(InteractiveShell):
            displayhook_class = Type(Hook)
            display_pub_class = Type(Publisher)

            def _showtraceback(self, etype, evalue, stb):
                sys.__stderr__.write(self.InteractiveTB.stb2text(stb) + "\n")
                copy.add(error_output(evalue, stb))

        config = Config()
        config.HistoryManager.enabled = False  # its database is the user's
        config.InteractiveShell.colors = "NoColor"
        try:
            import matplotlib_inline  # noqa: F401

            os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        except ImportError:
            pass
        self.shell = Shell.instance(config=config)
        Shell.system = InteractiveShell.system_piped

    def run(self, source, count):
        result = self.shell.run_cell(source, store_history=True)
        error = result.error_before_exec or result.error_in_exec
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            raise error
        if error is not None:
            raise Failed(error)


def bundle(data):
    """MIME types to text as the format wants it; bytes in base64."""
    import base64

    def one(value):
        if isinstance(value, bytes):
            return base64.b64encode(value).decode("ascii")
        return value

    return {kind: one(value) for kind, value in data.items()}


def print_result(copy, data, metadata, count):
    text = data.get("text/plain")
    if text:
        sys.__stdout__.write("%s\n" % text)
        sys.__stdout__.flush()
    copy.add({"output_type": "execute_result", "data": bundle(data), "metadata": metadata, "execution_count": count})


def error_output(error, lines):
    return {"output_type": "error", "ename": type(error).__name__, "evalue": str(error), "traceback": [str(line) for line in lines]}


def source_of(cell):
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)


def main(path, words):
    with open(path, encoding="utf-8") as file:
        notebook = json.load(file)
    name = os.path.basename(path)
    folder = os.path.dirname(os.path.abspath(path))
    outputs = os.path.abspath(os.environ.get("PLINTH_OUTPUT_DIR") or os.path.join(folder, "executed"))
    os.makedirs(outputs, exist_ok=True)
    copy = Copy(notebook, os.path.join(outputs, name))
    for cell in notebook["cells"]:
        if cell.get("cell_type") == "code":
            cell["outputs"], cell["execution_count"] = [], None
    # as Jupyter does it: paths and imports start at the notebook
    os.chdir(folder)
    sys.path[0] = folder
    sys.argv = [path, *words]
    sys.stdout, sys.stderr = Stream(sys.__stdout__, "stdout", copy), Stream(sys.__stderr__, "stderr", copy)

    def stopped(number, frame):
        copy.save()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, stopped)
    try:
        cells = IPythonCells(copy, folder)
    except ImportError:
        cells = PlainCells(copy, folder)
        sys.__stderr__.write("plinth: IPython is not in the environment: the cells run as plain Python\n")
    count = 0
    for number, cell in enumerate(notebook["cells"], 1):
        source = source_of(cell)
        if cell.get("cell_type") != "code" or not source.strip():
            continue
        count += 1
        copy.begin(cell, count)
        tags = (cell.get("metadata") or {}).get("tags") or []
        try:
            cells.run(source, count)
        except Failed as failed:
            if "raises-exception" in tags:
                continue
            first = source.strip().splitlines()[0][:80]
            error = failed.error
            sys.__stderr__.write("plinth: %s failed in cell %d, In [%d] (%s): %s: %s\n" % (name, number, count, first, type(error).__name__, error))
            return 1
        except SystemExit as ended:
            sys.__stderr__.write("plinth: %s ended itself in cell %d, In [%d]\n" % (name, number, count))
            return ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        except KeyboardInterrupt:
            return 130
        finally:
            copy.save()
    copy.save()
    sys.__stdout__.flush()
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    code = main(sys.argv[1], sys.argv[2:])
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)
