"""`python -m plinth_spool list` says what the server does not have yet, `python -m plinth_spool send` sends what dead trainings left."""

import argparse
import sys

from plinth_spool import leftovers


def main():
    parser = argparse.ArgumentParser(prog="python -m plinth_spool", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="list what trainings logged and the server does not have yet")
    send = verbs.add_parser("send", help="send what dead trainings left, now; sending twice changes nothing")
    send.add_argument("run", nargs="?", default="", help="the id of the run, or its first letters; otherwise all")
    send.add_argument("--url", help="the server to send to; otherwise the one that each was meant for")
    words = parser.parse_args()
    if words.verb == "list":
        states = leftovers.states()
        if not states:
            print("Nothing is waiting: the server has all of it.")
        for each in states:
            print(f"{each['run'][:8]}  {each['writer']:9}  {each['lines']:>8} lines left  {each['written']}  {each['url']}")
        return 0
    results = leftovers.send_all(words.url, words.run)
    if not results:
        print("Nothing was waiting for this.")
    for spool, problem in results:
        print(f"{spool.run[:8]}  {'sent' if problem is None else problem}")
    return 1 if any(problem for _, problem in results) else 0


if __name__ == "__main__":
    sys.exit(main())
