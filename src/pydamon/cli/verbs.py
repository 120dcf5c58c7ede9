"""The verbs of the command line, and what ``pydamon --help`` says: read before anything else is imported."""

from __future__ import annotations

from pydamon.cli.help.layout import folded, listed

# verb → (module that has `command`, help line); the help line stands here so that --help imports no verb.
VERBS = {
    "calibrate": ("pydamon.cli.calibrate", "Measure what faults and paging out cost on this machine."),
    "completion": ("pydamon.cli.completion.verb", "Print a script that completes pydamon's words in bash, zsh, fish."),
    "doctor": ("pydamon.cli.doctor", "Show what this machine offers this user, and why not more."),
    "export": ("pydamon.cli.export", "Write a record in another tool's format."),
    "fleet": ("pydamon.cli.fleet", "Ask about the memory of many machines, from what their services ship."),
    "generations": ("pydamon.cli.generations", "Show idle memory by the generations of the kernel's reclaim."),
    "help": ("pydamon.cli.help.verb", "Show the help of a verb, or write the manual pages."),
    "import": ("pydamon.cli.convert", "Make a record of another tool's file."),
    "metrics": ("pydamon.cli.metrics", "List the metrics that start --metrics tells; print a dashboard, and rules."),
    "modules": ("pydamon.cli.modules", "List, check and explain modules: what acts on memory by a few knobs."),
    "mount": ("pydamon.cli.mount", "Serve DAMON's sysfs tree by the user engine, for programs written for it."),
    "record": ("pydamon.cli.record", "Monitor a process, a command or a simulated workload; write a record."),
    "report": ("pydamon.cli.report", "Show a record: access, heatmap, wss, idle, diff and more."),
    "schemes": ("pydamon.cli.schemes", "Check, explain and convert schemes (DAMOS)."),
    "serve": ("pydamon.cli.serve", "Show recordings as a page in the browser."),
    "service": ("pydamon.cli.service", "Run what a file declares: monitors, their recordings, who may look."),
    "simulate": ("pydamon.cli.simulate", "Try policies on a simulated machine: what they save and cost."),
    "start": ("pydamon.cli.start", "Monitor in the background."),
    "status": ("pydamon.cli.status", "Show what runs in the background."),
    "stop": ("pydamon.cli.stop", "End what runs in the background."),
    "top": ("pydamon.cli.top", "Show what processes use of their memory, live."),
    "trace": ("pydamon.cli.trace", "Print DAMON's trace events, live or of a record."),
    "tune": ("pydamon.cli.tune", "Change what runs in the background."),
    "what-if": ("pydamon.cli.what_if", "Say what taking idle memory would save and cost, from a recording."),
    "workload": ("pydamon.cli.workload", "Run a known access pattern."),
}

ABOUT = "Find out which memory is hot and which is cold, at an overhead that you bound."
USAGE = "VERB [OPTIONS] ..."
HELP_OPTIONS = ("-h", "--help")
OPTIONS = {
    "--no-config": "Take no defaults from the configuration file and PYDAMON_OPTS.",
    "--version": "Show the version and exit.",
    ", ".join(HELP_OPTIONS): "Show this message and exit.",
}
FIRST = (
    ("pydamon doctor", "what can be monitored here, and how"),
    ("pydamon record -o run.damon --duration 30s 1234", "monitor a running process for half a minute"),
    ("pydamon report -i run.damon", "one screen of what was found"),
    ("pydamon help report wss", "more about one of the reports"),
)
STATUS = "Exit status: 0 done, 1 the work failed, 2 the request was wrong, 3 the machine cannot do it."


def help_text(width: int) -> str:
    """What ``pydamon --help`` prints, in lines of at most ``width`` columns."""
    parts = [
        folded(f"Usage: pydamon [OPTIONS] {USAGE}", "", "  ", width),
        folded(ABOUT, "  ", "  ", width),
        f"Options:\n{listed(OPTIONS.items(), width)}",
        f"Verbs:\n{listed(((verb, line) for verb, (_, line) in VERBS.items()), width)}",
        examples(FIRST, width),
        folded(STATUS, "  ", "  ", width),
    ]
    return "\n\n".join(parts) + "\n"


def examples(rows: tuple[tuple[str, str], ...], width: int) -> str:
    """A paragraph of commands, each below what it does."""
    lines = ["Examples:"]
    for command, what in rows:
        lines.append(folded(f"# {what}", "  ", "  # ", width))
        lines.append(folded(command, "  ", "      ", width, end=" \\"))
    return "\n".join(lines)
