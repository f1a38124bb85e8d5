"""The command line: our flags and `a..b` ranges rewritten into plain Hydra overrides."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from plugins.registry import UnknownName, did_you_mean

FLAGS_HELP = """\
python sweep.py -cn=EXPERIMENT [key=value ...] [flags]
python sweep.py --list [WORD ...]      the experiments whose name or header has all the words

Values
  lr=0.1                one value
  lr=0.1,0.2            an axis of the sweep; several axes: all combinations, leftmost slowest
  seed=0..100           integers 0 to 99;  0..100..10: every tenth;  [a,b] is one list value
  batch_size=none       null
  seed=range(0,9,2) lr=choice(1,2) mode=glob(*)             Hydra's own forms

Flags
  --workers N           N processes on this machine                            --workers=2
  --jobs N              N jobs of a cluster           hydra/launcher=slurm     --jobs=8
  --detach              submit the jobs to the cluster and return
  --zip a,b             the axes a and b vary together (repeatable)            --zip=lr,steps
  --output DIR          the store (default outputs/<family>/<experiment>)      --output=out/a
  --rerun k=v [k=v ..]  compute the matching runs of the sweep again,          --rerun seed=3..5
                        with those that the store lacks
  --dry-run             what would be computed, and how long it takes; nothing is started
  --fail-fast           start no new stack after a failed run
  --config-dir DIR      more experiments, DIR/<family>/<name>.yaml
  --cfg job             the keys of an experiment, nothing is run;  -cn=EXPERIMENT --help: with
                        Hydra's flags

The same command computes only what its store lacks. Exit status: 0 every run ok or diverged, 1 some
failed or are missing, 2 bad input (nothing was started), 3 nothing could be submitted, 4 stopped
waiting for jobs that go on (hydra.sweeper.wait_timeout_min), 130 after Ctrl-C, 143 after SIGTERM:
what is finished is stored.
"""

_SWITCHES = {"--dry-run": "dry_run", "--fail-fast": "fail_fast", "--detach": "detach"}
_VALUED = ("--workers", "--jobs", "--zip", "--output")
_NO_MULTIRUN = (
    *("--multirun", "-m", "--run", "-r", "--cfg", "-c", "--info", "-i"),
    *("--help", "-h", "--hydra-help", "--shell-completion", "-sc", "--version"),
)
_HYDRA_VALUED = ("--config-dir", "-cd", "--cfg", "-c", "--info", "-i", "--package", "-p")
_HYDRA_FLAGS = (
    *_NO_MULTIRUN,
    *_HYDRA_VALUED,
    *("--resolve", "--config-path", "-cp", "--experimental-rerun"),
)
_WORKERS = "hydra.sweeper.workers="
_ONE_RUN = ("hydra.mode=RUN", "hydra.mode=run")
COMPLETED_FLAGS = (  # by shells, with = where a value follows
    *(f"{flag}=" for flag in ("-cn", *_VALUED)),
    *(*_SWITCHES, "--rerun", "--list", "--cfg", "--help"),
)
_NUMBER = r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?"
_LOOKS_LIKE_RANGE = re.compile(rf"(?:{_NUMBER}\.\..*|[^/]*\.\.{_NUMBER})")
_RANGE = re.compile(r"([+-]?\d+)\.\.([+-]?\d+)(?:\.\.([+-]?\d+))?")


def translate_argv(argv: Sequence[str], experiments: Sequence[str]) -> list[str]:
    """Plain Hydra arguments for what the user typed (without the program's name).

    `experiments` are the config names that exist ("dln/gph"); a bare "gph" is completed.
    Raises ValueError (UnknownName for names) for input that is wrong by itself.
    """
    flags: list[str] = []  # Hydra's argparse wants its flags and the overrides apart
    overrides: list[str] = []
    config_name, counts = None, {}
    zips: list[str] = []
    given: set[str] = set()
    ours: list[str] = []  # flags that need our sweeper
    args = list(argv)
    while args:
        arg = args.pop(0)
        flag, equals, value = arg.partition("=")
        if flag in _VALUED or flag in _SWITCHES or flag == "--rerun":
            ours += [flag] if flag != "--output" else []
        if flag in ("-cn", "--config-name"):
            config_name = complete_name(_value(flag, equals, value, args), experiments)
            flags.append(f"--config-name={config_name}")
        elif flag in ("--workers", "--jobs"):
            counts[flag] = _count(flag, _value(flag, equals, value, args))
        elif flag == "--zip":
            keys = _value(flag, equals, value, args).split(",")
            zips.append("[" + ",".join(key.strip() for key in keys) + "]")
        elif flag == "--output":
            overrides.append(f"hydra.sweep.dir={_folder(_value(flag, equals, value, args))}")
        elif flag in _SWITCHES:
            overrides.append(f"hydra.sweeper.{_SWITCHES[flag]}=true")
        elif flag == "--rerun":
            matches = [value] if equals else []
            while not equals and args and "=" in args[0] and not args[0].startswith("-"):
                matches.append(args.pop(0))
            if not matches:
                raise ValueError("--rerun needs k=v: which runs to compute again")
            texts = ",".join(quoted(translate_override(match)) for match in matches)
            overrides.append(f"hydra.sweeper.rerun=[{texts}]")
        elif arg in _HYDRA_VALUED:
            flags += [arg, *args[:1]]
            del args[:1]
        elif arg.startswith("-"):
            if flag not in _HYDRA_FLAGS:
                known = {*_SWITCHES, *_VALUED, "--rerun", "--list", "-cn", *_HYDRA_FLAGS}
                hint = f" (a key has no dashes: {arg.lstrip('-')})" if "." in flag else ""
                raise UnknownName(f"there is no flag {flag}{hint}{did_you_mean(flag, known)}")
            flags.append(arg)
        elif not equals and not arg.startswith("~"):
            short = {name.split("/")[-1] for name in experiments}
            hint = (
                "no spaces around = and between the values of an axis; "
                "an experiment is named by -cn=NAME"
            )
            if arg in short.union(experiments):
                hint = f"an experiment is named by -cn={arg}"
            raise ValueError(f"{arg!r} is no key=value; {hint}")
        else:
            key = arg.partition("=")[0].lstrip("+~")
            if key in given:
                raise ValueError(f"{key} is given twice; write its values in one list: {key}=a,b")
            given.add(key)
            overrides.append(translate_override(arg))
    if zips:
        overrides.append(f"hydra.sweeper.zip=[{','.join(zips)}]")
    foreign = [arg for arg in overrides if arg in _ONE_RUN or arg.startswith("hydra/sweeper=")]
    if ours and any(arg != "hydra/sweeper=planned" for arg in foreign):
        raise ValueError(f"{ours[0]} works with our sweeper only, not with {foreign[0]}")
    overrides += _launcher(counts.get("--workers"), counts.get("--jobs"), given)
    one_config = any(flag.partition("=")[0] in _NO_MULTIRUN for flag in flags)
    if config_name is not None and not one_config and not set(_ONE_RUN) & set(overrides):
        flags.append("--multirun")
    return [*flags, *overrides]


def config_name_of(hydra_argv: Sequence[str]) -> str | None:
    """The completed config name in translated arguments."""
    names = [arg.partition("=")[2] for arg in hydra_argv if arg.startswith("--config-name=")]
    return names[-1] if names else None


def workers_of(hydra_argv: Sequence[str]) -> int | None:
    """The processes that `--workers` asks for in translated arguments."""
    counts = [arg.partition("=")[2] for arg in hydra_argv if arg.startswith(_WORKERS)]
    return _count("--workers", counts[-1]) if counts else None


def config_dirs_of(argv: Sequence[str]) -> list[str]:
    """The folders that Hydra's --config-dir adds to the search path."""
    flags = ("--config-dir", "-cd")
    spaced = [value for flag, value in pairwise(argv) if flag in flags]
    return spaced + [
        arg.partition("=")[2]
        for arg in argv
        if arg.partition("=")[:2] in [(flag, "=") for flag in flags]
    ]


def complete_name(name: str, experiments: Sequence[str]) -> str:
    """ "gph" -> "dln/gph"; a family's name alone is its file of that name. Raises UnknownName."""
    name = name.removesuffix(".yaml")
    if name in experiments:
        return name
    matches = [known for known in experiments if known.split("/")[-1] == name]
    if len(matches) == 1:
        return matches[0]
    if f"{name}/{name}" in matches:
        return f"{name}/{name}"
    if matches:
        raise UnknownName(f"{name!r} is ambiguous: {' or '.join(matches)}")
    short = {known.split("/")[-1] for known in experiments}
    raise UnknownName(f"there is no experiment {name!r}{did_you_mean(name, short)}")


def translate_override(override: str) -> str:
    """`k=a..b[..s]` -> `k=range(a,b,s)`, `k=none` -> `k=null`, also inside comma lists.

    Raises ValueError for an empty or non-integer range.
    """
    key, equals, value = override.partition("=")
    if not equals:
        return override
    elements = _split_commas(value)
    if len(elements) == 1:
        if numbers := _range(key, value.strip()):
            return f"{key}=range({numbers.start},{numbers.stop},{numbers.step})"
        return f"{key}={_null(value)}"
    spelled = []
    for element in elements:
        numbers = _range(key, element.strip())
        spelled += [_null(element)] if numbers is None else map(str, numbers)
    return f"{key}={','.join(spelled)}"


def quoted(text: str) -> str:
    """`text` as one quoted string of Hydra's override grammar."""
    # Backslashes are special to the grammar only where they stand before a quote.
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f"'{escaped}'"


def listed_words(argv: Sequence[str]) -> list[str] | None:
    """The words that `--list` is given; None without it."""
    if "--list" not in argv:
        return None
    folders = config_dirs_of(argv)
    words = argv[argv.index("--list") + 1 :]
    return [word for word in words if word[:1] != "-" and word not in folders]


def experiments_text(headers: Mapping[str, str], words: Sequence[str] = ()) -> str:
    """A line per experiment: config name, first header line; below it sentences with a word."""
    width = max(map(len, headers), default=0)
    lines = []
    for name, text in sorted(headers.items()):
        first, *others = text.split("\n")
        lines.append(f"  {name:<{width}}  {first}")
        said = f"{name} {first}".lower()
        wanted = [word.lower() for word in words if word.lower() not in said]
        prose = " ".join(other for other in others if not other.startswith("python "))
        sentences = re.split(r"(?<=[.?:]) ", prose)
        found = [text for text in sentences if any(word in text.lower() for word in wanted)]
        lines += [f"  {'':<{width}}    {text}" for text in found]
    return "\n".join(["experiments (python sweep.py -cn=NAME ...; --help for all forms):", *lines])


def _folder(path: str) -> str:
    if "${" in path or re.search(r"%[jAatn]", path):
        raise ValueError(
            f"--output={path}: Hydra or submitit would expand the ${{...}} or %j in it"
        )
    return quoted(path)


def _launcher(workers: int | None, jobs: int | None, given: set[str]) -> list[str]:
    if workers is not None and jobs is not None:
        raise ValueError("--workers (processes here) and --jobs (of a cluster) exclude each other")
    if jobs is not None:
        return [f"hydra.sweeper.units={jobs}"]
    if workers is None:
        return []
    with_launcher = workers == 1 or "hydra/launcher" in given
    return [f"hydra.sweeper.units={workers}" if with_launcher else f"{_WORKERS}{workers}"]


def _value(flag: str, equals: str, value: str, rest: list[str]) -> str:
    if equals:
        if not value:
            raise ValueError(f"{flag} needs a value")
        return value
    if not rest or rest[0].startswith("-"):
        raise ValueError(f"{flag} needs a value")
    return rest.pop(0)


def _count(flag: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"{flag} takes a whole number >= 1, got {value!r}")
    return int(value)


def _range(key: str, value: str) -> range | None:
    if not _LOOKS_LIKE_RANGE.fullmatch(value) or value[0] in "'\"[{(":
        return None
    match = _RANGE.fullmatch(value)
    if match is None:
        raise ValueError(f"{key}={value}: a range a..b or a..b..step takes integers")
    start, stop, step = int(match[1]), int(match[2]), int(match[3] or 1)
    if step == 0 or not range(start, stop, step):
        raise ValueError(f"{key}={value}: the range is empty (its end is excluded)")
    return range(start, stop, step)


def _null(value: str) -> str:
    return "null" if value.strip().lower() == "none" else value


def _split_commas(value: str) -> list[str]:
    """Split at commas outside of quotes and brackets."""
    parts, depth, quote, start, escaped = [], 0, "", 0, False
    for i, char in enumerate(value):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "[{(":
            depth += 1
        elif char in "]})":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(value[start:i])
            start = i + 1
    return [*parts, value[start:]]
