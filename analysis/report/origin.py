"""Where the runs come from: code, libraries, hosts, jobs, times."""

import json
from collections.abc import Mapping

from analysis.report.cells import some
from analysis.report.runs import StoredRuns
from plugins.parts import list_parts, retry_vanished
from plugins.winners import short_keys


def provenance(runs: StoredRuns) -> list[tuple[str, list[str]]]:
    """Pairs of a name and its values, each with the number of its runs where there are several."""
    rows = runs.rows
    versions: dict[str, dict[str, int]] = {}
    for text, n in rows["versions"].drop_nulls().value_counts().iter_rows():
        for name, version in _versions(text).items():
            of_name = versions.setdefault(name, {})
            of_name[version] = of_name.get(version, 0) + n
    libraries = [f"{name} {' and '.join(_counted(found))}" for name, found in versions.items()]
    code = dict(rows["code"].fill_null("outside of git").value_counts().iter_rows())
    jobs = rows["job"].drop_nulls().unique().sort().to_list()
    experiments = {
        f"{config.config['experiment']}, version {config.version}": 0
        for config in runs.configs.values()
    }
    started, finished = rows["started"].min(), rows["finished"].max()
    form = "%Y-%m-%d %H:%M:%S UTC"
    return [
        ("store", [str(runs.store)]),
        ("experiment", sorted(experiments)),
        ("code", _counted(code)),
        ("libraries", libraries or ["unknown"]),
        ("hosts", _counted(dict(rows["host"].fill_null("unknown").value_counts().iter_rows()))),
        ("SLURM jobs", some([_job(job) for job in jobs]) if jobs else ["none"]),
        ("first start", [started.strftime(form)]),
        ("last finish", [finished.strftime(form)]),
        ("superseded attempts", [f"{_superseded(runs):,}"]),
    ]


def _versions(text: str) -> Mapping[str, str]:
    """As plugins.provenance writes them; another writer's text is shown as it is."""
    try:
        found = json.loads(text)
    except ValueError:
        return {text: ""}
    return found if isinstance(found, dict) else {text: ""}


def _job(text: str) -> str:
    try:
        job = json.loads(text)
        return job.get("SLURM_JOB_ID", text)
    except (ValueError, AttributeError):
        return text


def _counted(found: Mapping[str, int]) -> list[str]:
    if len(found) == 1:
        return list(found)
    ordered = sorted(found.items(), key=lambda pair: -pair[1])
    return some([f"{value} ({n:,} runs)" for value, n in ordered])


def _superseded(runs: StoredRuns) -> int:
    """Attempts that are stored and do not count: a failed one before a good one, a repetition."""
    keys = retry_vanished(lambda: short_keys(list_parts(runs.store)))
    return keys["attempt"].n_unique() - len(runs.rows)
