"""Runs a program in a terminal of its own: python3 terminal.py ROWS COLS PROGRAM ARGUMENT...

What the program writes goes to standard output as it is. Standard input takes one JSON value per line: a string is typed, a pair
of numbers is the terminal's new size. The exit code is the program's.
"""
import fcntl
import json
import os
import pty
import select
import struct
import sys
import termios


def resize(fd, rows, cols):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


rows, cols, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
pid, terminal = pty.fork()
if pid == 0:
    resize(0, rows, cols)
    os.execvp(program[0], program)
resize(terminal, rows, cols)
pending = b""
inputs = [terminal, 0]
while True:
    ready, _, _ = select.select(inputs, [], [])
    if 0 in ready:
        data = os.read(0, 65536)
        if data == b"":
            inputs.remove(0)
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            value = json.loads(line)
            if isinstance(value, str):
                os.write(terminal, value.encode())
            else:
                resize(terminal, *value)
    if terminal in ready:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the program has ended
            data = b""
        if data == b"":
            break
        os.write(1, data)
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status) % 256)
