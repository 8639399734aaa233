"""A shell for one command, in a session of its own on the terminal that is its stdin.

Takes `foreground` or `background`, and the words of the command. Prints when that stops, after which it is told
to go on, and when it ends; each time whether the terminal is as it was, and at last what nobody read.
"""

import array
import fcntl
import os
import signal
import subprocess
import sys
import termios


def run(how: str, words: list[str]) -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    before = termios.tcgetattr(0)
    process = subprocess.Popen(words, process_group=0, stdout=subprocess.DEVNULL)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # which the command does not inherit
    while True:
        if how == "foreground":
            os.tcsetpgrp(0, process.pid)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        os.tcsetpgrp(0, os.getpgrp())
        ended = "stopped" if os.WIFSTOPPED(status) else f"ended {os.waitstatus_to_exitcode(status)}"
        print(ended, "as it was" if termios.tcgetattr(0) == before else "changed", flush=True)
        if not os.WIFSTOPPED(status):
            break
        if how == "foreground":
            os.tcsetpgrp(0, process.pid)
        os.kill(process.pid, signal.SIGCONT)
    waiting = array.array("i", [0])
    fcntl.ioctl(0, termios.FIONREAD, waiting)
    print("left", os.read(0, waiting[0]) if waiting[0] else b"", flush=True)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2:])
