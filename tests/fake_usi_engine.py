"""A USI engine of few lines that misbehaves on demand: ``python fake_usi_engine.py --fault crash --at 3``.

It plays the first legal move of a list sorted by name. It notes each life and each question in ``--diary``.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from rsshogi.core import Board

FAULTS = (
    "crash",  # ends with exit status 7 and a last word on its error output
    "killed",  # ends by a signal
    "half a line",  # ends in the middle of its answer
    "last words",  # tells on its output why it ends, without the end of a line
    "silence",  # thinks for ever
    "illegal move",
    "unreadable",
    "win",
    "none",
    "resign",
    "gossip",  # talks for ever, and never to the point
    "answer and leave",  # answers, then ends
    "answer twice",  # a second, other answer that nobody asked for
)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def first_move(position: str) -> str:
    board = Board()
    board.set_usi_position(position)
    return min(move.to_usi() for move in board.legal_moves())


def misbehave(fault: str, move: str) -> None:
    """Do what was asked for, instead of answering or besides."""
    if fault == "crash":
        sys.stderr.write("out of luck\n")
        sys.stderr.flush()
        os._exit(7)
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "half a line":
        sys.stdout.write(f"bestmove {move}")
        sys.stdout.flush()
        os._exit(0)
    if fault == "last words":
        sys.stdout.write("info string Error! no memory left")
        sys.stdout.flush()
        os._exit(1)
    if fault == "silence":
        time.sleep(3600)
    if fault == "unreadable":
        sys.stdout.buffer.write(b"bestmove \xff\x00\n")
        sys.stdout.flush()
        return
    while fault == "gossip":
        say("info string " + "bla " * 1000)
    answers = {"illegal move": "5e5d", "win": "win", "none": "none", "resign": "resign"}
    say(f"bestmove {answers.get(fault, move)}")
    if fault == "answer twice":
        say("bestmove 9g9f")
    if fault == "answer and leave":
        os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fault", choices=FAULTS, default="")
    parser.add_argument("--at", type=int, default=1, help="at which question of this process; 0: at every one")
    parser.add_argument("--diary", type=Path, default=Path(os.devnull))
    parser.add_argument("--lives", type=int, default=1 << 30, help="misbehave in so many lives only (by the diary)")
    parser.add_argument("--start", choices=("slow", "never", "crash", "exit when ready"), default="")
    parser.add_argument("--think-s", type=float, default=0.0, help="seconds for each answer")
    parser.add_argument("--stubborn", action="store_true", help="neither quit nor the end of input nor SIGTERM ends it")
    parser.add_argument("--noise", action="store_true", help="fill the error output with more than a pipe holds")
    options = parser.parse_args()
    life = options.diary.read_text().count("start") if options.diary.is_file() else 0

    def note(text: str) -> None:
        with options.diary.open("a") as diary:
            diary.write(text + "\n")

    note(f"start {os.getpid()}")
    if options.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.start == "crash":
        sys.exit("no network file")
    questions, position = 0, ""
    for line in sys.stdin:
        words = line.split()
        note(line.rstrip())
        if options.noise:
            sys.stderr.write("noise " * 20_000 + "\n")
            say("junk\n\n\tbestmoves, readyok?")
        match words[0]:
            case "usi":
                if options.start in ("slow", "never"):
                    time.sleep(0.5 if options.start == "slow" else 3600)
                say("id name fake\noption name Skill Level type spin default 20 min -20 max 20")
                say("option name Style type combo default calm var calm var very wild\noption name Clear type button")
                say("option name UCI_Variant type combo default shogi var shogi")
                say("option name Ponder type check default false\noption name Book type string default <empty>")
                say("option what is this\nusiok")
            case "isready":
                say("readyok")
            case "usinewgame" if options.start == "exit when ready":
                sys.exit()
            case "position":
                position = line.strip()
            case "go":
                questions += 1
                time.sleep(options.think_s)
                due = options.at in (0, questions) and life < options.lives
                if due and options.fault:
                    misbehave(options.fault, first_move(position))
                    note("misbehaved")
                else:
                    say(f"info depth 1\nbestmove {first_move(position)} ponder 1a1b")
            case "quit" if not options.stubborn:
                return
    while options.stubborn:
        time.sleep(60)


if __name__ == "__main__":
    main()
