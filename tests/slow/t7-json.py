"""See t7-json.sh.  Argument: json_text."""
import json
import os
import random
import subprocess
import sys

n_lines, rng = int(os.environ.get("LINES", "500000")), random.Random(int(os.environ.get("SEED", "1")))
sys.setrecursionlimit(100000)
characters = ["a", "b", "text", "é", "日", "🎉", "\n", "\t", "\0", "\x1f", '"', "\\", "/", "\ud800", "\udc00", "\ud83d\ude00", "\ufeff", "\u2028", "\x7f", "{", "}", "[", "]", ":", ",", "n", "u"]
bits = ["{", "}", "[", "]", ",", ":", '"', "\\", '"text"', "null", "true", "NaN", "-", "Infinity", "0", "1", ".", "e", "E5", "\\u", "\\ud83d", "\\n", " ", "\t", "\r", "\x01", "\0", "u00", "-0", "01", "1.", "\\'", "/", "tru", "日", '""', "{}"]


def string():
    s = "".join(rng.choice(characters) for _ in range(rng.randrange(rng.choice([1, 4, 40]))))
    quoted = json.dumps(s, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.3:                         # the same in other escapes
        quoted = quoted.replace("/", "\\/").replace("a", "\\u0061").replace("t", "\\u0074").replace("e", "\\u0065" if rng.random() < 0.5 else "\\u0065")
        quoted = quoted.replace("\\\\u00", "\\\\\\u0075")
    return quoted.encode("utf-8", "surrogatepass").decode("utf-8", "replace") if "\\ud" not in quoted else quoted


def number():
    return rng.choice(["0", "-0", "1", "-12", "18446744073709551616", "1" * 400, "1e400", "-1E-400", "0.5", "1.25e+3", "NaN", "Infinity", "-Infinity", "0e0"])


def value(depth=0):
    kind = rng.random()
    space = rng.choice(["", "", "", " ", "\t", "\r", "  "])
    if depth < 6 and kind < 0.2:
        return "[" + space + ("," + space).join(value(depth + 1) for _ in range(rng.randrange(4))) + space + "]"
    if depth < 6 and kind < 0.4:
        return members(depth + 1)
    if kind < 0.75:
        return string()
    return number() if kind < 0.85 else rng.choice(["true", "false", "null"])


def members(depth=0):
    space = rng.choice(["", "", " ", "\t "])
    keys = ['"text"', '"text"', '"text"', '"text"', '"te\\u0078t"', '"\\u0074ext"', '"id"', '"Text"', '"text "', '"te"']
    return "{" + space + ("," + space).join((rng.choice(keys) if rng.random() < 0.7 else string()) + space + ":" + space + value(depth) for _ in range(rng.randrange(rng.choice([2, 5, 9])))) + space + "}"


def line():
    good = rng.choice(["", " ", "\t"]) + (members() if rng.random() < 0.95 else value()) + rng.choice(["", "", " ", "\r"])
    if rng.random() < 0.5:
        return good
    for _ in range(rng.choice([1, 1, 1, 3, 9])):   # spoiled
        at, n = rng.randrange(len(good) + 1), rng.choice([0, 0, 1, 1, 5])
        good = good[:at] + (rng.choice(bits) if rng.random() < 0.7 else "") + good[at + n:]
    return good


def by_python(text):
    try:
        found = json.loads(text, strict=False)     # control characters count in the text alone
    except ValueError:
        return "fault"
    if not isinstance(found, dict):
        return "fault"
    if "text" not in found:
        return "nothing"
    t = found["text"]
    if isinstance(t, str):
        return t
    return {type(None): "null", bool: str(t).lower(), int: "a number", float: "a number", list: "an array", dict: "an object"}[type(t)]


def agrees(source, python, ours, replace):
    if ours.startswith("fault") and "control character in the text" in ours:
        try:
            json.loads(source)
            return False
        except ValueError:
            return True
    if not isinstance(python, str) or python == "fault" or not ours.startswith("a string"):
        return ours.split(" ")[0] == "fault" if python == "fault" else ours == python or lone(python) and not replace and "lone surrogate" in ours
    if lone(python) and not replace:
        return False
    return bytes.fromhex(ours[9:]) == "".join("\ufffd" if 0xD800 <= ord(c) < 0xE000 else c for c in python).encode()


def lone(s):
    return any(0xD800 <= ord(c) < 0xE000 for c in s)


def run(lines, *options):
    out = subprocess.run([sys.argv[1], "text", *options], input="".join(s + "\n" for s in lines).encode(), capture_output=True)
    return out.returncode, out.stdout.decode().split("\n")[:-1]


failed = 0


def check(good, words):
    global failed
    check.n += 1
    failed |= not good
    print(f"{'' if good else 'not '}ok {check.n} - {words}", flush=True)


check.n = 0
lines = [s for s in (line() for _ in range(n_lines)) if "\n" not in s]
lines = [s for s in lines if not lone(s)]
want = [by_python(s) for s in lines]
for options in ([], ["replace"]):
    status, got = run(lines, *options)
    bad = [(s, w, g) for s, w, g in zip(lines, want, got) if not agrees(s, w, g, bool(options))] if len(got) == len(lines) else []
    check(status == 0 and len(got) == len(lines) and not bad,
          f"{len(lines)} lines {' '.join(options)}: {sum(g.startswith('a string') for g in got)} texts, {sum(g.startswith('fault') for g in got)} faults, {len(bad)} are otherwise than Python's {sorted(bad, key=lambda b: len(b[0]))[:3]}")
deep = 1000000
nested = ['{"a":' + "[" * deep + "]" * deep + ',"text":"x"}', '{"a":' + '{"text":' * deep + "1" + "}" * deep + ',"text":"x"}', '{"a":' + "[" * deep, '{"text":"x","a":' + "[" * deep + "]" * (deep - 1) + "}"]
check(run(nested)[1] == ["a string 78", "a string 78", f"fault {len(nested[2])} ends before a value", f"fault {len(nested[3]) - 1} expected ',' or ']'"], "a million levels")
print(f"1..{check.n}")
sys.exit(bool(failed))
